from dataclasses import replace
from typing import Any

import pytest

from fabric.catalog import UnknownNodeError, gpu_spec, node_names, node_spec
from fabric.chip import check_sources
from fabric.node import MemoryTier, NodeSpec

RUBIN = node_spec("vera-rubin")


@pytest.mark.parametrize("name", node_names())
def test_every_number_of_every_node_has_a_source(name: str) -> None:
    node = node_spec(name)
    assert node.name == name
    check_sources(name, list(node.numbers()), node.sources)
    assert all(source.source for source in node.sources)


def test_the_presets_that_the_reference_documents_name_are_there() -> None:
    wanted = {"vera-rubin", "vera-rubin-1gpu", "ddr5-soc", "gb300-nvl72", "apple-ultra", "strix-halo", "gb10"}
    assert wanted | {"h100", "h200", "b200", "cpx"} == set(node_names())
    assert [name for name in node_names() if node_spec(name).speculative] == ["ddr5-soc"]


@pytest.mark.parametrize(("name", "gpu", "count"), [("h100", "h100", 1), ("gb300-nvl72", "gb300", 72)])
def test_a_node_of_a_gpu_has_the_numbers_of_that_gpu(name: str, gpu: str, count: int) -> None:
    node, spec = node_spec(name), gpu_spec(gpu)
    assert node.tiers[0].memory_bytes == count * spec.memory_bytes
    assert node.tiers[0].bytes_per_second == count * spec.memory_bytes_per_second
    assert node.flops_fp16 == count * spec.flops_bf16
    sources = {source.field: source.source for source in node.sources}
    assert f"gpu {gpu}: " in sources["hbm.bytes_per_second"]


def test_a_format_that_a_node_lacks_runs_at_the_next_wider_one() -> None:
    assert node_spec("apple-ultra").peak("fp4") == node_spec("apple-ultra").flops_fp16
    assert node_spec("h100").peak("fp4") == node_spec("h100").flops_fp8
    assert node_spec("gb10").peak("fp4") == node_spec("gb10").flops_fp4


def test_a_bridge_limits_what_lies_behind_it() -> None:
    tier = MemoryTier(name="ddr", memory_bytes=1, bytes_per_second=883.2e9, efficiency=0.95)
    assert tier.rate == pytest.approx(839.04e9)
    assert replace(tier, bridge_bytes_per_second=64e9).rate == pytest.approx(0.95 * 64e9)
    assert replace(tier, bridge_bytes_per_second=1800e9).rate == tier.rate


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"devices": 0}, "devices: "),
        ({"tiers": ()}, "tiers: "),
        ({"tiers": RUBIN.tiers * 2}, "tiers: "),
        ({"flops_fp16": 0}, "flops_fp16: "),
        ({"flops_efficiency": 1.5}, "flops_efficiency: "),
        ({"link_bytes_per_second": None}, "link_bytes_per_second: "),
        ({"watts": (2.0, 1.0)}, "watts: "),
        ({"idle_watts": (1.0, float("inf"))}, "idle_watts: "),
        ({"ssd_bytes": 0}, "ssd_bytes: "),
        ({"link_seconds": -1.0}, "link_seconds: "),
    ],
)
def test_a_node_that_cannot_be_is_refused_by_the_name_of_its_number(
    change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        replace(RUBIN, **change)


@pytest.mark.parametrize("name", ["memory_bytes", "bytes_per_second", "efficiency"])
def test_a_tier_needs_numbers_above_0(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        replace(RUBIN.tiers[0], **{name: 0})


def test_an_unknown_name_says_the_closest() -> None:
    with pytest.raises(UnknownNodeError, match="Did you mean vera-rubin"):
        node_spec("vera-rubi")


def test_a_node_says_its_numbers_once() -> None:
    assert isinstance(RUBIN, NodeSpec)
    assert RUBIN.numbers()["lpddr.bridge_bytes_per_second"] == 1.8e12
    assert "ssd_bytes" not in node_spec("gb300-nvl72").numbers()
