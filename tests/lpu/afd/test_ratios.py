"""Ratios side by side: what does not fit is a point, the best one meets the target, some lose."""

import json

import pytest
from hopped import BRIDGE

from compiler.errors import CapacityError
from fabric.catalog import gpu_spec
from lpu.afd.ratios import Ratio, RatioSweep, ratio_sweep
from lpu.afd.times.hops import HopTimes, pace
from lpu.gpu.share import GpuShare, fastest, shares
from models.catalog import catalog

LLAMA = catalog("llama-3.1-70b")
SHARES = [shares(LLAMA, gpu_spec("h200"), count, BRIDGE) for count in (1, 8)]


def hops(rows: int) -> tuple[HopTimes, int]:
    if rows > 64:
        raise CapacityError("stages", "block ffn", f"needs {rows}, has 64", "Use fewer rows.")
    times = HopTimes(
        cycles=(4_000 + 40 * rows,) * LLAMA.layers,
        clock_hz=1_464_843_750,
        down_bytes=2 * LLAMA.hidden,
        up_bytes=4 * LLAMA.hidden,
        wire_down="fp16",
        wire_up="f32",
    )
    return times, 256


def sweep(target: float | None = None) -> RatioSweep:
    return ratio_sweep(SHARES, hops, [1, 16, 128], [1, 2, 3], 8192, target)


@pytest.fixture(scope="module")
def every() -> RatioSweep:
    return sweep()


def test_every_combination_that_divides_is_a_point(every: RatioSweep) -> None:
    found = [(point.gpus, point.batch, point.micro_batches) for point in every.points]
    assert found == [(g, b, m) for g in (1, 8) for b in (1, 16, 128) for m in (1, 2, 3) if b % m == 0]


def test_what_does_not_fit_is_a_point_with_the_reason(every: RatioSweep) -> None:
    refused = {(p.gpus, p.batch, p.micro_batches): p.refused for p in every.points if p.refused}
    assert "needs 128, has 64" in refused[8, 128, 1]
    assert "1 x h200: needs" in refused[1, 128, 2]
    for point in every.points:
        assert (point.tpot is None) == bool(point.refused)
        if point.refused:
            assert (point.per_rack, point.verdict(None)) == (0, "refused")


def test_a_point_is_the_pace_of_its_step(every: RatioSweep) -> None:
    point = next(p for p in every.points if (p.gpus, p.batch, p.micro_batches) == (8, 16, 2))

    def attention(one: GpuShare) -> int:
        return round(one.attention(8, 8192).seconds * 1e12)

    share = fastest(SHARES[1], attention, 16, 8192, ffns=0)
    alone = min(one.step(16, 8192) for one in SHARES[1] if one.pool.gpus > 1)
    found = pace(share, hops(8)[0], 16, 2, 8192, alone=alone)
    assert point.tpot is not None
    assert (point.tpot, point.alone) == (float(found.period) / 1e12, found.alone / 1e12)
    assert point.binding == found.binding
    assert point.racks == 8 / 72 + 256 / 256
    assert point.per_rack == 16 / point.tpot / point.racks


def test_the_best_point_meets_the_target_and_none_that_does_gives_more(every: RatioSweep) -> None:
    timed = sorted(point.tpot for point in every.points if point.tpot is not None)
    assert every.best is not None
    target = timed[len(timed) // 2]
    found = sweep(target)
    assert found.best is not None
    assert found.best.tpot is not None
    assert found.best.tpot <= target
    meeting = [point for point in found.points if point.tpot is not None and point.tpot <= target]
    assert found.best.per_rack == max(point.per_rack for point in meeting)
    assert sweep(timed[0] / 2).best is None


def test_dividing_loses_somewhere_and_the_words_say_where(every: RatioSweep) -> None:
    lost = [point for point in every.points if point.verdict(None) == "loses"]
    assert lost
    for point in lost:
        assert point.alone_per_rack >= point.per_rack
    assert every.losing.startswith(f"AFD loses at {len(lost)} of ")
    assert RatioSweep(points=(), target=None).losing == "AFD loses at none of 0 points"


@pytest.mark.parametrize(
    ("tpot", "alone", "target", "verdict"),
    [
        (1.0, 2.0, None, "loses"),  # a whole rack of LPUs beside 8 GPUs for twice the speed
        (0.01, 2.0, None, "wins"),
        (0.01, 2.0, 1.0, "wins"),  # GPUs alone are too slow
        (3.0, 2.0, 1.0, "too slow"),
        (3.0, 0.5, 1.0, "loses"),
        (None, None, 1.0, "refused"),
    ],
)
def test_a_verdict_by_hand(
    tpot: float | None, alone: float | None, target: float | None, verdict: str
) -> None:
    point = Ratio(gpus=8, lpus=256, batch=4, micro_batches=1, tpot=tpot, alone=alone, binding="ffn")
    assert point.verdict(target) == verdict
    if target is None:
        assert point.over_alone is not None
        assert (point.over_alone > 1) == (verdict == "wins")


def test_a_sweep_is_plain_json_with_a_verdict_for_each_point(every: RatioSweep) -> None:
    body = json.loads(json.dumps(every.to_json()))
    assert len(body["points"]) == len(every.points)
    assert {point["verdict"] for point in body["points"]} >= {"refused", "loses"}
    assert body["best"]["tpot_seconds"] is not None
