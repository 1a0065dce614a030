"""The rooflines against the arithmetic of facts reference_tables.md, case by case."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CapacityError
from fabric.catalog import node_names, node_spec
from fabric.node import NodeSpec
from lpu.gpu.served.shape import shapes
from lpu.nodes.demand import NodeDemand, of_config, of_shape, supposed
from lpu.nodes.residency import placed, resident_tokens
from lpu.nodes.roofline import NodeWork, decode, prefill
from models.catalog import catalog

SOC, RUBIN, ONE = node_spec("ddr5-soc"), node_spec("vera-rubin"), node_spec("vera-rubin-1gpu")
DENSE = supposed()["dense-500b"]


def bare(parameters: float, kept: int = 0) -> NodeDemand:
    """A dense model without attention, as tables of reference 000 count."""
    number = int(parameters)
    return NodeDemand(
        name="bare", parameters=number, shared=number, layers=1, hidden=1, kept=kept, pair_flops=0
    )


def whole(node: NodeSpec, **changes: object) -> NodeSpec:
    """The node with all of its memory usable, and peaks reached."""
    return replace(node, reserve=0.0, flops_efficiency=1.0, **changes)  # pyright: ignore[reportArgumentType]


def rate(node: NodeSpec, model: NodeDemand, batch: int = 1, context: int = 1, weights: str = "fp4") -> float:
    return batch / decode(node, model, NodeWork(context=context, batch=batch, weights=weights)).seconds


@pytest.mark.parametrize(
    ("gigabytes", "printed"), [(100, 8.4), (250, 3.4), (500, 1.7), (140, 6.0), (200, 4.2)]
)
def test_path_b_decodes_as_c_000_02(gigabytes: int, printed: float) -> None:
    assert rate(SOC, bare(2e9 * gigabytes)) == pytest.approx(printed, abs=0.05)


def test_kv_that_is_read_slows_path_b_as_the_remark_to_c_000_02_says() -> None:
    load = NodeWork(context=32_768, weights="fp4", kv="fp16")
    assert 1 / decode(whole(SOC, flops_fp16=1e18), DENSE, load).seconds == pytest.approx(2.67, abs=0.01)


@pytest.mark.parametrize(("bridge", "tokens"), [(64e9, 0.256), (900e9, 3.36), (1800e9, 3.36)])
def test_bridges_limit_as_c_000_03(bridge: float, tokens: float) -> None:
    tier = replace(SOC.tiers[0], bridge_bytes_per_second=bridge, efficiency=1.0 if bridge < 1e11 else 0.95)
    assert rate(replace(SOC, tiers=(tier,)), bare(500e9)) == pytest.approx(tokens, rel=0.002)


def test_path_a_decodes_as_c_000_04() -> None:
    free = whole(RUBIN, link_seconds=0.0)
    assert rate(whole(ONE), bare(500e9)) == pytest.approx(74.8, rel=1e-3)
    assert rate(free, bare(500e9)) == pytest.approx(149.6, rel=1e-3)
    assert rate(free, bare(1000e9)) == pytest.approx(74.8, rel=1e-3)  # 500 GB fit in 576: not 3.1
    assert rate(whole(ONE), bare(1000e9)) == pytest.approx(4.5, abs=0.05)
    assert rate(free, bare(2000e9)) == pytest.approx(2.3, abs=0.05)


def test_all_reduces_are_paid_for_between_devices() -> None:
    free, load = whole(RUBIN, link_seconds=0.0), NodeWork(context=1, weights="fp4")
    paid = decode(whole(RUBIN), DENSE, load)
    assert paid.links == pytest.approx(decode(free, DENSE, load).links + 240 * RUBIN.link_seconds)
    assert decode(ONE, DENSE, load).links == 0
    crossed = 240 * 2 * (1 / 2) * DENSE.hidden * 2 / 1.8e12
    assert decode(free, DENSE, load).links == pytest.approx(crossed)


@pytest.mark.parametrize(("batch", "tokens"), [(1, 3.36), (2, 5.0), (4, 5.0), (64, 5.0)])
def test_path_b_saturates_at_5_tokens_as_c_000_06(batch: int, tokens: float) -> None:
    assert rate(SOC, bare(500e9), batch) == pytest.approx(tokens, rel=0.002)


def test_a_b200_is_not_compute_bound_at_batch_64_as_c_000_05_says() -> None:
    hbm = replace(node_spec("b200").tiers[0], memory_bytes=10**12, bytes_per_second=8e12, efficiency=1.0)
    node = whole(node_spec("b200"), tiers=(hbm,), flops_fp4=10e15)
    assert rate(node, bare(500e9), 64) == pytest.approx(2048, rel=1e-3)
    bounds = [
        decode(node, bare(500e9), NodeWork(context=1, batch=b, weights="fp4")).bound for b in (312, 313)
    ]
    assert bounds == ["hbm", "compute"]


@pytest.mark.parametrize(
    ("tokens", "seconds"),
    [(32_000, (0.37, 7306, 1.8)), (128_000, (2.0, 40_096, 10.0)), (300_000, (7.0, 139_600, 34.9))],
)
def test_prefill_takes_what_c_000_08_computes(tokens: int, seconds: tuple[float, float, float]) -> None:
    for flops, expected in zip((100e15, 5e12, 20e15), seconds, strict=True):
        node = whole(SOC, flops_fp16=flops)
        found = prefill(node, DENSE, NodeWork(context=tokens, weights="fp4"))
        assert found.compute == pytest.approx(expected, rel=0.03)


def test_attention_is_quadratic_and_a_seventh_of_a_prompt_of_32k() -> None:
    products, attention = DENSE.prefill_flops(32_000)
    assert attention / products == pytest.approx(0.14, abs=0.005)
    assert DENSE.prefill_flops(64_000)[1] == 4 * attention
    assert DENSE.prefill_flops(300_000)[1] / DENSE.prefill_flops(300_000)[0] == pytest.approx(1.33, abs=0.01)


@pytest.mark.parametrize(
    ("model", "kv", "bytes_a_token", "path_a", "path_b"),
    [
        ("dense-70b", "fp16", 327_680, 6.30e6, 9.05e6),
        ("dense-200b", "fp16", 786_432, 2.54e6, 3.69e6),
        ("dense-500b", "fp16", 1_966_080, 0.94e6, 1.40e6),
        ("dense-500b", "fp8", 983_040, 1.88e6, 2.80e6),
        ("dense-1t", "fp8", 2_621_440, 0.61e6, 0.95e6),
    ],
)
def test_resident_tokens_are_those_of_c_000_09(
    model: str, kv: str, bytes_a_token: int, path_a: float, path_b: float
) -> None:
    demand = supposed()[model]
    assert demand.kv_numbers(1) * (2 if kv == "fp16" else 1) == bytes_a_token
    lpddr = replace(
        RUBIN.tiers[1], memory_bytes=1_524_000_000_000
    )  # 2,100 GB together, as the table's note has it
    for node, expected in ((whole(RUBIN, tiers=(RUBIN.tiers[0], lpddr)), path_a), (whole(SOC), path_b)):
        *_, (_, tokens) = resident_tokens(node, demand, "fp4", kv).items()
        assert tokens == pytest.approx(expected, rel=0.01)


def test_what_reference_000_printed_for_the_500b_is_what_is_left_in_hbm() -> None:
    first = next(iter(resident_tokens(whole(RUBIN), DENSE, "fp4", "fp16").values()))
    assert first == pytest.approx(166e3, rel=0.01)


def test_131072_tokens_of_the_500b_need_both_gpus_as_c_000_15() -> None:
    load = NodeWork(context=131_072, weights="fp4", kv="fp8")
    assert 1 / decode(whole(RUBIN, link_bytes_per_second=1e30, link_seconds=0.0), DENSE, load).seconds == (
        pytest.approx(98.7, abs=0.05)
    )
    assert [tier for tier, _ in decode(whole(ONE), DENSE, load).tiers] == ["hbm", "lpddr"]


def test_tiers_one_after_another_or_at_once() -> None:
    load = NodeWork(context=131_072, weights="fp4")
    serial, at_once = decode(ONE, DENSE, load), decode(ONE, DENSE, load, overlapped=True)
    assert serial.tiers == at_once.tiers
    assert serial.memory == pytest.approx(sum(seconds for _, seconds in serial.tiers))
    assert at_once.memory == max(seconds for _, seconds in serial.tiers)
    assert serial.bound == at_once.bound == "lpddr"


@given(
    st.sampled_from(node_names()),
    st.floats(1e9, 1e12),
    st.floats(0, 3e12),
)
def test_every_byte_lies_somewhere_and_no_tier_is_over_full(name: str, weights: float, kv: float) -> None:
    node = node_spec(name)
    try:
        held = placed(node, weights, kv)
    except CapacityError:
        memory = sum(node.usable(tier) for tier in node.tiers)
        assert weights + kv > memory + node.ssd_bytes or weights > memory
        return
    assert sum(one.weights for one in held) == pytest.approx(weights)
    assert sum(one.kv for one in held) == pytest.approx(kv, abs=1)
    room = {tier.name: node.usable(tier) for tier in node.tiers} | {"ssd": node.ssd_bytes}
    assert all(one.weights + one.kv <= room[one.tier] * (1 + 1e-12) for one in held)
    assert all(one.weights == 0 for one in held if one.tier == "ssd")


@given(st.sampled_from(["dense-70b", "dense-500b"]), st.integers(1, 64), st.integers(1, 200_000))
def test_more_work_is_never_faster(model: str, batch: int, context: int) -> None:
    demand, load = supposed()[model], NodeWork(context=context, batch=batch, weights="fp4")
    step = decode(RUBIN, demand, load).seconds
    assert decode(RUBIN, demand, replace(load, batch=batch + 1)).seconds >= step
    assert decode(RUBIN, demand, replace(load, context=context + 1)).seconds >= step
    assert decode(RUBIN, demand, replace(load, weights="fp8")).seconds >= step
    assert decode(RUBIN, demand, load, overlapped=True).seconds <= step


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("deepseek-v3", 671, 37),
        ("kimi-k2", 1027, 32),
        ("qwen3-235b-a22b", 235, 21.6),
        ("gpt-oss-120b", 117, 5.1),
        ("qwen3-32b", 32.8, 32),
    ],
)
def test_served_models_have_their_published_parameters(name: str, billions: float, active: float) -> None:
    demand = of_shape(shapes()[name])
    assert demand.parameters == pytest.approx(billions * 1e9, rel=0.02)
    assert demand.active == pytest.approx(active * 1e9, rel=0.04)


def test_a_batch_reads_the_experts_that_some_token_takes() -> None:
    demand = of_shape(shapes()["qwen3-235b-a22b"])
    assert demand.read(1) == pytest.approx(demand.active)
    assert demand.read(10_000) == pytest.approx(demand.shared + 128 * demand.expert_parameters)
    assert demand.active < demand.read(8) < 8 * demand.active
    whole_of_two = demand.shared + demand.expert_parameters * 128 * (1 - (120 / 128) ** 2)
    assert demand.read(2) == pytest.approx(whole_of_two)


def test_mla_keeps_576_numbers_and_attends_over_latents_in_decode_only() -> None:
    demand = of_shape(shapes()["deepseek-v3"])
    assert demand.kept == 61 * 576
    assert demand.pair_flops == 61 * 128 * 2 * (576 + 512)
    assert demand.prefill_flops(1000)[1] == 61 * 128 * 2 * 320 * 1000 * 1000 / 2


def test_a_window_bounds_what_is_kept() -> None:
    demand = of_shape(shapes()["gpt-oss-120b"])
    assert demand.kv_numbers(64) == 36 * 2 * 8 * 64 * 64
    assert demand.kv_numbers(10_000) == 18 * 2 * 8 * 64 * (10_000 + 128)
    node = replace(whole(SOC), tiers=(replace(SOC.tiers[0], memory_bytes=int(demand.parameters + 10**9)),))
    (tokens,) = resident_tokens(node, demand, "fp8", "fp8").values()
    assert demand.kv_numbers(int(tokens)) <= 10**9 < demand.kv_numbers(int(tokens) + 1)


def test_a_catalog_model_reads_all_but_its_table() -> None:
    config = catalog("llama-3.1-8b")
    demand = of_config(config)
    assert demand.parameters == config.parameters()
    assert demand.active == demand.parameters - config.vocab * config.hidden
    tied = of_config(replace(config, tied=True))
    assert tied.active == tied.parameters


def test_weights_do_not_go_to_the_drive() -> None:
    with pytest.raises(
        CapacityError, match=r"nodes: h100: needs 250\.0 GB of weights, its memory has 72\.0 GB"
    ):
        decode(node_spec("h100"), DENSE, NodeWork(context=1, weights="fp4"))


def test_kv_on_the_drive_is_read_at_its_slower_rate() -> None:
    load = NodeWork(context=100_000, batch=8, weights="fp8")
    step = decode(node_spec("h100"), supposed()["dense-70b"], load)
    on_drive = 8 * 100_000 * 163_840 - (0.9 * 80e9 - 70e9)
    assert dict(step.tiers)["ssd"] == pytest.approx(on_drive / 7e9)
