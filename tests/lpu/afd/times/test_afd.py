"""Mode afd in time: stages by hand, closed forms, the slots, and what makes a token slower."""

from dataclasses import replace
from fractions import Fraction

import closed_schedules
import numpy as np
import pytest
from hopped import BRIDGE
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import SMALL

from compiler.errors import OptionError
from fabric.catalog import gpu_spec
from lpu.afd.times.afd import layer_parts, turns, warnings
from lpu.afd.times.hops import HopTimes, SlotRule, check_micro_batches, pace
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare, shares
from lpu.gpu.units import total
from lpu.pingpong.pingpong import run
from lpu.pingpong.stages import StageError, Stages

H200 = gpu_spec("h200")
HOPS = HopTimes(
    cycles=(400, 400), clock_hz=10**9, down_bytes=320, up_bytes=640, wire_down="fp16", wire_up="f32"
)
JITTER = SlotRule(jitter=0.2, target=0.05, seed=3)


def gpus(count: int = 1, latency_ns: int = 4_000, nic: int = 50_000_000_000) -> GpuShare:
    spec = replace(H200, nic_bytes_per_second=nic)
    return shares(SMALL, spec, count, replace(BRIDGE, latency_ns=latency_ns))[-1]


def test_the_stages_of_a_micro_batch_by_hand() -> None:
    """One row on one GPU: 320 bytes at 50 GB/s are 6.4 ns down, 640 are 12.8 ns up, 4 us each way."""
    one = gpus()
    attention = round(one.attention(1, 20).seconds * 1e12)
    layer = Stages(attention, 6_400, 400_000, 12_800, latency=4_000_000)
    found = pace(one, HOPS, 2, 2, 20)
    assert found.plan.layers == (layer, layer)
    assert (found.plan.embed, found.plan.head, found.rows) == (one.embed(1), one.head(1), 1)
    assert found.alone == one.step(2, 20)
    # attention of two micro-batches is longer than the way of one, so it sets the pace
    assert found.binding == "attention"
    assert found.period == 2 * (2 * attention + one.embed(1) + one.head(1))
    assert found.exposed == run(found.plan).makespan - run(found.plan.without_transfers()).makespan
    parts = layer_parts(one, HOPS, found, 20)
    assert abs(total(parts) - sum(layer.times + layer.delays)) <= len(
        parts
    )  # operators are rounded one by one


def test_every_gpu_of_a_replica_gets_its_own_copy_of_what_comes_back() -> None:
    layer = pace(gpus(2), HOPS, 2, 1, 20).plan.layers[0]
    assert (layer.down, layer.up, layer.latency) == (6_400, 25_600, 4_000_000)


def test_one_micro_batch_takes_the_sum_of_its_stages() -> None:
    found = pace(gpus(), HOPS, 2, 1, 20)
    layer = found.plan.layers[0]
    way = closed_schedules.one_micro_batch(2, layer) + 2 * sum(layer.delays)
    assert found.period == way + found.plan.embed + found.plan.head
    assert found.binding == "latency"


def test_a_slow_ffn_sets_the_pace_where_it_hides_the_rest() -> None:
    slow = replace(HOPS, cycles=(400_000, 400_000))
    found = pace(gpus(), slow, 4, 4, 20)
    layer = found.plan.layers[0]
    # the pool serves every head of a step before the next one, so the FFNs wait once a step for one way
    between = sum(layer.times) - layer.ffn + found.plan.head + found.plan.embed + sum(layer.delays)
    assert (found.binding, found.period) == ("ffn", 4 * 2 * layer.ffn + between)


def test_a_turn_by_hand() -> None:
    request = Request(prompt_tokens=10, new_tokens=4, batch=2, turns=2, later_tokens=5, queue_seconds=2e-6)
    one = gpus()
    (first, second), paces = turns(request, one, HOPS, 2, SlotRule())
    assert [part.picoseconds for part in first.first] == [2_000_000, one.prefill(10, 0, 2)]
    assert [part.picoseconds for part in first.step] == [pace(one, HOPS, 2, 2, 12).period, 0]
    assert [part.basis for part in first.first + first.step] == ["assumed", *["modelled"] * 3]
    crossed = 2 * 3 * 2  # sequences, steps after the first token, layers
    assert first.crossed == {"activations_down": crossed * 320, "activations_up": crossed * 640}
    # of 14 tokens all but the last one have their KV
    assert (second.reused, second.first[1].picoseconds) == (13, one.prefill(6, 13, 2))
    assert paces[1].period == pace(one, HOPS, 2, 2, 14 + 5 + 2).period


def test_without_jitter_nothing_waits_and_nothing_is_missed() -> None:
    report = pace(gpus(), HOPS, 2, 2, 20).boundary
    assert report.boundary.slack_cycles == report.misses == report.late_hops == 0
    assert not report.waiting_cycles.any()
    assert report.elapsed_cycles.var() == 0


def test_jitter_moves_tokens_and_leaves_the_cycles_of_the_lpus_alone() -> None:
    found = pace(gpus(), HOPS, 2, 2, 20, JITTER)
    report = found.boundary
    assert report.boundary.slack_cycles > 0
    assert report.lpu_cycles.tolist() == [2 * 400] * 1000
    assert report.elapsed_cycles.var() > 0
    assert 0.03 < report.late_share < 0.07  # drawn, where 0.05 was asked for
    calm = pace(gpus(), HOPS, 2, 2, 20)
    slack = report.boundary.slack_cycles * 1000
    assert found.plan.layers[0] == replace(calm.plan.layers[0], slot=slack)
    assert found.period >= calm.period


def test_a_missed_slot_costs_exactly_one_period() -> None:
    found = pace(gpus(), HOPS, 2, 2, 20, JITTER)
    report, boundary = found.boundary, found.boundary.boundary
    in_time = 2 * (boundary.offset_cycles + 400)
    late, rest = np.divmod(report.elapsed_cycles - in_time, boundary.period_cycles)
    assert not rest.any()
    assert late.sum() == report.misses > 0
    assert boundary.period_cycles == -(-int(found.period) // (2 * 1000))
    assert found.missed == round(2 * boundary.miss_probability * boundary.period_cycles * 1000)


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 12),
    more=st.integers(1, 12),
    m=st.integers(1, 4),
    count=st.sampled_from([1, 2, 3, 4, 8]),
    kv_len=st.integers(1, 5000),
)
def test_more_rows_or_a_slower_link_never_make_a_token_faster(
    batch: int, more: int, m: int, count: int, kv_len: int
) -> None:
    base = pace(gpus(count), HOPS, batch * m, m, kv_len).period
    assert pace(gpus(count), HOPS, (batch + more) * m, m, kv_len).period >= base
    assert pace(gpus(count, latency_ns=4_000 + more), HOPS, batch * m, m, kv_len).period >= base
    assert pace(gpus(count, nic=50_000_000_000 // (1 + more)), HOPS, batch * m, m, kv_len).period >= base
    assert pace(gpus(count), HOPS, batch * m, m, kv_len + more).period >= base


@pytest.mark.parametrize(("batch", "m"), [(4, 3), (5, 5), (4, 0), (1, 2)])
def test_micro_batches_that_cannot_be_equal_are_refused(batch: int, m: int) -> None:
    with pytest.raises(OptionError, match=f"--micro-batches {m}: a batch of {batch} is cut into equal"):
        check_micro_batches(batch, m)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"jitter": -0.1}, "--gpu-jitter is -0.1"),
        ({"jitter": float("nan")}, "--gpu-jitter is nan"),
        ({"jitter": float("inf")}, "--gpu-jitter is inf"),
        ({"target": 0.0}, "--miss-probability is 0.0"),
        ({"target": 1.0}, "--miss-probability is 1.0"),
        ({"target": float("nan")}, "--miss-probability is nan"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, float], text: str) -> None:
    with pytest.raises(StageError, match=text):
        SlotRule(**wrong)  # pyright: ignore[reportArgumentType]


def test_dividing_a_small_model_loses_and_says_so() -> None:
    found = pace(gpus(), HOPS, 2, 2, 20)
    assert found.period > Fraction(found.alone)
    assert warnings(found, 2)[0].startswith("AFD loses: ")
    fast = replace(found, alone=int(found.period) + 1)
    assert not [line for line in warnings(fast, 2) if line.startswith("AFD loses")]
