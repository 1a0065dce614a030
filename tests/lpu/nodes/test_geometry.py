import pytest

from lpu import api
from lpu.gpu.served.shape import shapes
from lpu.inputs.document import FileError
from lpu.nodes.ask import demand_of
from lpu.nodes.demand import NodeDemand, of_shape
from lpu.nodes.geometry import of_published
from lpu.nodes.options import NodeLoad
from models.published.entries import published


@pytest.mark.parametrize("name", ["deepseek-v3", "kimi-k2", "qwen3-235b-a22b", "gpt-oss-120b"])
def test_a_config_asks_what_the_stated_shape_of_a_served_model_asks(name: str) -> None:
    found, stated = of_published(name, published()[name].config), of_shape(shapes()[name])
    for field in ("parameters", "shared", "active", "expert_parameters"):
        assert getattr(found, field) == pytest.approx(getattr(stated, field), rel=0.03), field
    for field in (
        "layers",
        "hidden",
        "kept",
        "near",
        "window",
        "experts",
        "topk",
        "pair_flops",
        "prompt_flops",
    ):
        assert getattr(found, field) == getattr(stated, field), field


def test_gemma_keeps_little_beyond_its_window() -> None:
    demand = demand_of("gemma-4-31b")
    assert demand.parameters == pytest.approx(31e9, rel=0.03)
    assert demand.kv_numbers(100_000) == 10 * 2 * 4 * 512 * 100_000 + 50 * 2 * 16 * 256 * 1024
    (one,) = api.nodes_compare("gemma-4-31b", NodeLoad(nodes="h200", rack="none", context=100_000)).nodes
    assert one.steps[0].bound == "hbm"


def understood(name: str) -> NodeDemand | str:
    try:
        return of_published(name, published()[name].config)
    except FileError as error:
        return str(error)


def test_most_published_models_are_understood() -> None:
    assert sum(isinstance(understood(name), NodeDemand) for name in published()) >= 45


@pytest.mark.parametrize("name", sorted(published()))
def test_every_published_model_is_understood_or_refused_by_its_kind(name: str) -> None:
    demand = understood(name)
    if isinstance(demand, str):
        assert demand.startswith(f"nodes: {name}: ")
        return
    assert 0 < demand.shared <= demand.active <= demand.parameters
    assert demand.read(1) == pytest.approx(demand.active)
    assert demand.read(10**6) <= demand.parameters * 1.001
    assert demand.kv_numbers(1) > 0


@pytest.mark.parametrize(
    ("name", "why"),
    [("deepseek-v3.2", "sparse"), ("mamba2-2.7b", "states"), ("qwen3-next-80b-a3b", "linear")],
)
def test_what_is_no_plain_attention_is_refused_by_name(name: str, why: str) -> None:
    with pytest.raises(FileError, match=why):
        demand_of(name)
