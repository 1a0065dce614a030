"""The dam: LPU cycles never vary, lateness costs whole periods, and the slack buys what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpu.pingpong.boundary import Boundary, lognormal, miss_probability, slack_for, slots
from lpu.pingpong.stages import StageError

ONE = Boundary(
    gpu_ps=30_000_000,
    jitter=0,
    period_cycles=10_000,
    slack_cycles=0,
    lpu_cycles=7_000,
    clock_hz=1_465_000_000,
)
JITTERS = (0, 0.05, 0.5)


@pytest.mark.parametrize("jitter", JITTERS)
@pytest.mark.parametrize("slack", [-500, 0, 2_000])
def test_lpu_cycles_of_a_thousand_tokens_do_not_vary_whatever_the_jitter(
    jitter: int | float, slack: int
) -> None:
    report = slots(replace(ONE, jitter=jitter, slack_cycles=slack), steps=1000, hops=8, seed=1)
    assert report.lpu_cycles.tolist() == [8 * 7_000] * 1000
    assert report.lpu_cycles.var() == 0
    assert (report.elapsed_cycles.var() > 0) == (jitter > 0)


@pytest.mark.parametrize("jitter", JITTERS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(jitter: int | float) -> None:
    boundary = replace(ONE, jitter=jitter)
    first, again, other = (slots(boundary, steps=50, hops=4, seed=seed) for seed in (3, 3, 4))
    assert first.elapsed_cycles.tobytes() == again.elapsed_cycles.tobytes()
    assert first.to_json() == again.to_json()
    assert (first.waiting_cycles.tobytes() == other.waiting_cycles.tobytes()) == (jitter == 0)


@given(
    late=st.integers(-100_000, 100_000),
    slack=st.integers(-1_000, 1_000),
    period=st.integers(1, 5_000),
)
def test_a_slot_that_is_taken_is_the_first_not_before_the_arrival(late: int, slack: int, period: int) -> None:
    boundary = replace(ONE, slack_cycles=slack, period_cycles=period)
    arrival = boundary.offset_cycles + late
    (missed,) = boundary.missed(np.array([arrival])).tolist()
    taken = boundary.offset_cycles + missed * period
    assert taken >= arrival
    assert missed == 0 or taken - period < arrival


def test_being_on_time_is_free_and_one_cycle_late_costs_a_period() -> None:
    offset, period = ONE.offset_cycles, ONE.period_cycles
    arrivals = np.array([0, offset, offset + 1, offset + period, offset + period + 1, offset + 5 * period])
    assert ONE.missed(arrivals).tolist() == [0, 0, 1, 1, 2, 5]


@pytest.mark.parametrize("jitter", JITTERS)
def test_every_missed_slot_costs_exactly_a_period(jitter: int | float) -> None:
    boundary = replace(ONE, jitter=jitter, slack_cycles=100)
    report = slots(boundary, steps=1000, hops=5, seed=7)
    undisturbed = 1000 * 5 * (boundary.offset_cycles + boundary.lpu_cycles)
    assert int(report.elapsed_cycles.sum()) == undisturbed + report.misses * boundary.period_cycles
    assert report.misses >= report.late_hops
    assert (report.misses > 0) == (jitter > 0)


def test_a_hop_late_by_several_periods_counts_them_all() -> None:
    report = slots(replace(ONE, jitter=2.0, period_cycles=500), steps=200, hops=3, seed=5)
    assert report.misses > 3 * report.late_hops


@pytest.mark.parametrize("slack", [0, 1, 5_000])
def test_no_jitter_and_slack_miss_nothing(slack: int) -> None:
    report = slots(replace(ONE, slack_cycles=slack), steps=100, hops=4, seed=0)
    assert (report.misses, report.late_share, report.boundary.miss_probability) == (0, 0, 0)
    assert report.waiting_cycles.tolist() == [4 * slack] * 100


@pytest.mark.parametrize("slack", [-1, -700])
def test_no_jitter_and_too_early_a_slot_miss_always(slack: int) -> None:
    report = slots(replace(ONE, slack_cycles=slack), steps=100, hops=4, seed=0)
    assert (report.misses, report.late_share, report.boundary.miss_probability) == (400, 1, 1)


@pytest.mark.parametrize("jitter", [0.05, 0.5])
@pytest.mark.parametrize("slack", [-1_000, 0, 4_000])
def test_what_is_counted_is_near_what_the_distribution_says(jitter: int | float, slack: int) -> None:
    report = slots(replace(ONE, jitter=jitter, slack_cycles=slack), steps=1000, hops=10, seed=11)
    expected = report.boundary.miss_probability
    five_sigma = 5 * (expected * (1 - expected) / 10_000) ** 0.5
    assert report.late_share == pytest.approx(expected, abs=five_sigma + 1e-3)


def test_factors_have_mean_one_and_the_spread_asked_for() -> None:
    factors = lognormal(0.5, 200_000, 2)
    assert factors.mean() == pytest.approx(1, abs=0.01)
    assert factors.std() == pytest.approx(0.5, rel=0.03)
    assert lognormal(0, 3, 2).tolist() == [1, 1, 1]


@given(target=st.floats(1e-6, 0.4), jitter=st.floats(0.001, 1))
def test_the_slack_for_a_target_keeps_it_and_a_cycle_less_does_not(
    target: float, jitter: int | float
) -> None:
    slack = slack_for(target, ONE.gpu_ps, jitter, ONE.clock_hz)
    kept = replace(ONE, jitter=jitter, slack_cycles=slack)
    assert kept.miss_probability <= target * (1 + 1e-6)
    if slack:
        assert replace(kept, slack_cycles=slack - 1).miss_probability > target * (1 - 1e-6)


def test_no_jitter_needs_no_slack() -> None:
    assert slack_for(1e-9, ONE.gpu_ps, 0, ONE.clock_hz) == 0
    assert miss_probability(10, 11, 0) == 1
    assert miss_probability(0, 11, 0.3) == 1


def test_cycles_are_rounded_up() -> None:
    assert ONE.nominal_cycles == 43_950
    slow = replace(ONE, clock_hz=1_000_000_000)
    assert slow.cycles(np.array([0, 1, 1000, 1001])).tolist() == [0, 1, 1, 2]


def test_the_report_says_how_each_probability_was_had() -> None:
    report = slots(replace(ONE, jitter=0.05, slack_cycles=3000), steps=10, hops=2, seed=0)
    keys = json.loads(json.dumps(report.to_json()))
    assert {"miss_probability_analytic", "late_share_counted", "label"} <= set(keys)
    assert keys["lpu_cycles_variance"] == 0
    for word in ("modelled", "(analytic)", "(counted)", "slack 3,000", "variance 0"):
        assert word in str(report)


def test_impossible_boundaries_are_refused_in_a_line() -> None:
    with pytest.raises(StageError, match="period_cycles: is 0, needs 1"):
        replace(ONE, period_cycles=0)
    with pytest.raises(StageError, match="jitter: is -0"):
        replace(ONE, jitter=-0.1)
    with pytest.raises(StageError, match="needs -43950 or more"):
        replace(ONE, slack_cycles=-43_951)
    with pytest.raises(StageError, match="steps 0 and hops 1"):
        slots(ONE, steps=0, hops=1, seed=0)
    with pytest.raises(StageError, match="between 0 and 1"):
        slack_for(0.0, 1, 0.1, 1)
    with pytest.raises(StageError, match="int64 holds"):
        slots(replace(ONE, gpu_ps=2**61), steps=1, hops=1, seed=0)
