from dataclasses import replace
from typing import Any

import pytest

from fabric.catalog import UnknownGpuError, gpu_names, gpu_spec
from fabric.chip import check_sources
from fabric.gpu import spread

H200 = gpu_spec("h200")


def sources(name: str) -> dict[str, tuple[str, str]]:
    return {s.field: (s.confidence, s.source) for s in gpu_spec(name).sources}


def test_the_catalog_holds_seven_gpus() -> None:
    assert gpu_names() == ("b200", "cpx", "gb200", "gb300", "h100", "h200", "r100")


@pytest.mark.parametrize("name", gpu_names())
def test_every_number_of_every_gpu_has_a_source(name: str) -> None:
    gpu = gpu_spec(name)
    assert gpu.name == name
    check_sources(gpu.name, gpu.sourced_names(), gpu.sources)
    assert {s.confidence for s in gpu.sources} <= {"A", "B", "C", "D", "R", "assumed"}
    assert all(s.source for s in gpu.sources)


@pytest.mark.parametrize("name", gpu_names())
def test_what_is_carried_over_is_assumed_and_names_a_gpu_that_the_spec_names(name: str) -> None:
    gpu = gpu_spec(name)
    carried = {s.field: s for s in gpu.sources if "carried over from" in s.source}
    assert all(s.confidence == "assumed" for s in carried.values())
    named = {s.source.split("carried over from ")[1].split()[0].strip(";,") for s in carried.values()}
    assert named - {"h200"} == set(gpu.carried_from) - {"h200"}
    assert named <= {*gpu.carried_from, "h200"}


def test_carried_numbers_are_those_of_the_gpu_that_they_come_from() -> None:
    for name in gpu_names():
        gpu = gpu_spec(name)
        for source in gpu.sources:
            origin = source.source.partition("carried over from ")[2].split(" ")[0].strip(";,")
            if origin and "." in source.field and not source.field.startswith("all_reduce"):
                own, theirs = gpu.numbers()[source.field], gpu_spec(origin).numbers()[source.field]
                start = gpu_spec("r100").numbers()[source.field]
                assert own == theirs or (name == "cpx" and own == start), (name, source.field)


def test_r100_starts_from_section_1_2_of_the_facts_and_prints_its_band() -> None:
    gpu = gpu_spec("r100")
    assert (gpu.memory_bytes_per_second, gpu.decode_bf16.eb) == (22e12, 0.90)
    assert (gpu.decode_fp8.t0_seconds, gpu.decode_fp8.tw_seconds) == (10e-6, 1.3e-6)
    assert (gpu.context_bf16.ef, gpu.context_fp8.ef) == (0.57, 0.73)
    assert gpu.gemm_nvfp4
    assert (gpu.gemm_bf16.ef, gpu.gemm_fp8.ef, gpu.gemm_nvfp4.ef) == (0.64, 0.45, 0.35)
    assert (gpu.band_text, gpu.nic_bytes_per_second) == ("+-25 %", 200e9)
    assert sources("r100")["decode_bf16.t0_seconds"][0] == "assumed"


def test_measured_generations_state_no_band_and_say_whose_kernels_they_use() -> None:
    assert (H200.band_text, H200.parameters_text) == ("-", "h200")
    assert gpu_spec("b200").parameters_text == "b200, gb200, h200"
    assert gpu_spec("gb300").parameters_text == "gb200, h200"
    assert gpu_spec("cpx").band_text == "+-25 %"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_bytes_per_second": 0}, "memory_bytes_per_second: gpu h200 has 0, needs above 0"),
        ({"nic_bytes_per_second": 0.0}, "nic_bytes_per_second: gpu h200 has 0.0, needs above 0"),
        ({"nvlink_bytes_per_second": -1}, "nvlink_bytes_per_second: gpu h200 has -1, needs above 0"),
        ({"flops_fp8": float("nan")}, "flops_fp8: gpu h200 has nan"),
        ({"sms": 0}, "sms: gpu h200 has 0, needs above 0"),
        ({"band": 1.5}, "band: gpu h200 has 1.5, needs at most 1"),
        (
            {"decode_bf16": replace(H200.decode_bf16, eb=1.1)},
            "decode_bf16.eb: gpu h200 has 1.1, needs",
        ),
        ({"gemm_bf16": replace(H200.gemm_bf16, ef=0)}, "gemm_bf16.ef: gpu h200 has 0, needs above 0"),
        ({"flops_fp4": 1e15}, "gemm_nvfp4: gpu h200 needs flops_fp4 and gemm_nvfp4 both"),
    ],
)
def test_a_gpu_that_cannot_be_says_which_number(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(H200, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": ((256, 3e-6), (512, 4e-6))}, "points: .* needs 3 rows"),
        ({"floors": ((2, 0.0),)}, "floors: .* above 0"),
        ({"points": ((256, 3e-6), (512, 2e-6), (600, 4e-6))}, r"\(512, 2e-06\) follows \(256, 3e-06\)"),
    ],
)
def test_all_reduces_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(H200.all_reduce, **change)


def test_a_changed_number_is_marked_as_assumed() -> None:
    gpu = H200.with_numbers("sweep", memory_bytes_per_second=1e12)
    by_field = {s.field: s for s in gpu.sources}
    assert gpu.memory_bytes_per_second == 1e12
    assert by_field["memory_bytes_per_second"].source == "sweep"
    assert by_field["sms"].confidence == "B"


def test_the_source_of_a_record_stands_for_its_numbers_without_one() -> None:
    source = H200.sources[0]
    record, one = replace(source, field="a"), replace(source, field="a.eb", source="its own")
    found = spread(["a.ef", "a.eb", "b"], (record, one, replace(source, field="b")))
    assert [s.field for s in found] == ["a.ef", "a.eb", "b"]
    assert found[1].source == "its own"


def test_an_unknown_gpu_gets_the_closest_name() -> None:
    with pytest.raises(UnknownGpuError, match="Did you mean h200"):
        gpu_spec("h20")
