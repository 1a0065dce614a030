"""Deskew: the bound on late words against clocks that really drift, and what a program tolerates."""

import math
from dataclasses import replace

import numpy as np
import pytest

from compiler.options import CompileOptions
from compiler.program.program import Program
from lpu import api
from lpu.deskew.drift import Crossings, crossings, drifting, tolerated_ppm
from lpu.inputs.document import FileError

PROGRAM = api.compile(
    "llama-tiny", rack="quad", context=64, options=CompileOptions(tp=4), prove=False
).program
ALONE = api.compile("llama-tiny", rack="quad", context=64, options=CompileOptions(tp=1), prove=False).program


def found_in(program: Program, every: int | None) -> Crossings:
    return crossings(program.expand(64), program.manifest, every)


@pytest.mark.parametrize("every", [500, 3_000, None])
@pytest.mark.parametrize("margin", [1, 8])
def test_no_word_is_late_at_the_drift_that_is_tolerated(every: int | None, margin: int) -> None:
    found = found_in(PROGRAM, every)
    period = every or int(PROGRAM.manifest.cycles[64]) + 1
    most = tolerated_ppm(found, margin)
    random = np.random.default_rng(0)
    for _ in range(20):
        clocks = random.uniform(-most / 2, most / 2, PROGRAM.manifest.chips)
        late = drifting(found, clocks.tolist(), period, margin)
        assert late.max() <= 1e-6
        assert (late <= found.late(most, margin) + 1e-6).all()


def test_a_word_is_late_when_clocks_drift_further() -> None:
    found, margin = found_in(PROGRAM, None), 2
    period = int(PROGRAM.manifest.cycles[64]) + 1
    most = 1.01 * tolerated_ppm(found, margin)
    worst = int(np.argmax(found.ages))
    clocks = np.full(PROGRAM.manifest.chips, -most / 2)
    clocks[found.chip[worst]] = most / 2
    assert drifting(found, clocks.tolist(), period, margin)[worst] > 0
    asked = api.DeskewOptions(drift_ppm=most, margin=margin)
    verdict = api.deskew(PROGRAM, asked)
    assert not verdict.ok
    assert verdict.missed >= 1
    assert "cycles late" in str(verdict)


def test_the_verdict_turns_at_what_is_tolerated() -> None:
    most = api.deskew(PROGRAM).tolerated_ppm
    assert api.deskew(PROGRAM, api.DeskewOptions(drift_ppm=0.999 * most)).ok
    assert not api.deskew(PROGRAM, api.DeskewOptions(drift_ppm=1.001 * most)).ok


def test_more_resynchronisations_tolerate_more_and_cost_cycles() -> None:
    often, seldom = (api.deskew(PROGRAM, api.DeskewOptions(every=every, cost=3)) for every in (500, 4_000))
    assert often.tolerated_ppm > seldom.tolerated_ppm
    assert often.with_cost - often.cycles == 3 * math.ceil(often.cycles / 500)
    assert often.with_cost > seldom.with_cost


def test_a_clock_a_ten_thousandth_off_is_a_cycle_late_after_ten_thousand() -> None:
    skew = api.deskew(PROGRAM, api.DeskewOptions(drift_ppm=100, every=10_000)).skew_cycles
    assert math.isclose(skew, 1)


def test_without_transfers_any_drift_is_tolerated() -> None:
    verdict = api.deskew(ALONE, api.DeskewOptions(drift_ppm=1e5))
    assert verdict.ok
    assert math.isinf(verdict.tolerated_ppm)
    assert verdict.to_json()["tolerated_ppm"] is None


def test_waves_need_resynchronisations() -> None:
    options = CompileOptions(tp=1, objective="throughput")
    waves = api.compile("llama-tiny", rack="pair", context=64, options=options, prove=False).program
    with pytest.raises(FileError, match="--every is needed"):
        api.deskew(waves)
    assert api.deskew(waves, api.DeskewOptions(every=1_000)).ok


def test_resynchronisations_hold_every_chip_until_the_slowest() -> None:
    one = replace(
        found_in(PROGRAM, 100),
        **{name: np.array([0]) for name in ("row", "chip", "ages")},
        peer=np.array([1]),
        leave=np.array([250]),
        due=np.array([260]),
    )
    late = drifting(one, [100.0, -100.0, 0.0, 0.0], 100, margin=0)
    assert math.isclose(late[0], 50 * 1e-4 + 60 * 1e-4, rel_tol=1e-6)


@pytest.mark.parametrize(
    "how", [{"drift_ppm": -1.0}, {"every": 0}, {"margin": -1}, {"drift_ppm": float("nan")}]
)
def test_options_that_cannot_be_are_refused(how: dict[str, float]) -> None:
    with pytest.raises(FileError, match="must be"):
        api.DeskewOptions(**how)  # pyright: ignore[reportArgumentType]
