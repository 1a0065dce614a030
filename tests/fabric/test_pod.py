import pytest

from fabric.catalog import UnknownPodError, bridge_names, gpu_spec, pod_names, pod_spec, rack_names
from fabric.rack import load_rack


@pytest.mark.parametrize("name", pod_names())
def test_a_pod_is_one_nvlink_domain_beside_racks_of_the_catalog(name: str) -> None:
    pod = pod_spec(name)
    assert pod.gpus == gpu_spec(pod.gpu).nvlink_gpus == 72
    assert pod.rack in rack_names()
    assert pod.bridge in bridge_names()
    assert load_rack(pod.rack).chips % 256 == 0


def test_there_is_a_pod_for_every_number_of_racks() -> None:
    racks = [name for name in rack_names() if name == "lpx" or name.startswith("lpx-x")]
    assert [pod_spec(name).rack for name in pod_names()] == racks


def test_an_unknown_pod_is_answered_with_the_closest_one() -> None:
    with pytest.raises(UnknownPodError, match="Did you mean nvl72-lpx-x4"):
        pod_spec("nvl72-lpx-4")
