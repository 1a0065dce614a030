"""Closed forms and event schedule, each a test of the other: equal where a condition holds, only there."""

from fractions import Fraction

import closed_schedules
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lpu.pingpong import closed_forms
from lpu.pingpong.pingpong import run, schedule, steady_period
from lpu.pingpong.stages import PingPongPlan, StageError, Stages

LAYERS, MICRO_BATCHES = st.integers(2, 6), st.integers(1, 5)
SOME, ANY = st.integers(1, 200), st.integers(0, 200)


def makespan(layers: int, micro_batches: int, *times: int) -> int:
    return schedule([Stages(*times)] * layers, micro_batches).makespan


@given(layers=LAYERS, micro_batches=st.integers(2, 5), time=SOME)
def test_equal_stages_and_free_links_take_m_l_t_and_one_more(
    layers: int, micro_batches: int, time: int
) -> None:
    formula = closed_schedules.ping_pong(layers, micro_batches, time)
    assert makespan(layers, micro_batches, time, 0, time, 0) == formula


@given(layers=LAYERS, micro_batches=st.integers(2, 5), time=SOME, more=SOME, stage=st.integers(0, 3))
def test_they_take_longer_if_any_stage_does(
    layers: int, micro_batches: int, time: int, more: int, stage: int
) -> None:
    times = [time, 0, time, 0]
    times[stage] += more
    assert makespan(layers, micro_batches, *times) > closed_schedules.ping_pong(layers, micro_batches, time)


@given(layers=LAYERS, t_a=ANY, down=ANY, t_f=ANY, up=ANY)
def test_one_micro_batch_overlaps_nothing(layers: int, t_a: int, down: int, t_f: int, up: int) -> None:
    stages = Stages(t_a, down, t_f, up)
    assert makespan(layers, 1, *stages.times) == closed_schedules.one_micro_batch(layers, stages)


@given(layers=LAYERS, t_a=SOME, down=SOME, t_f=SOME, up=SOME)
def test_two_micro_batches_take_less_than_twice_one(
    layers: int, t_a: int, down: int, t_f: int, up: int
) -> None:
    stages = Stages(t_a, down, t_f, up)
    assert makespan(layers, 2, *stages.times) < 2 * closed_schedules.one_micro_batch(layers, stages)


@given(layers=LAYERS, micro_batches=MICRO_BATCHES, t_a=SOME, t_e=SOME, t_c=ANY)
def test_megascale_is_exact_where_its_conditions_hold(
    layers: int, micro_batches: int, t_a: int, t_e: int, t_c: int
) -> None:
    assume(closed_schedules.megascale_holds(micro_batches, t_a, t_e, t_c))
    formula = closed_schedules.megascale_step(layers, micro_batches, t_a, t_e, t_c)
    assert makespan(layers, micro_batches, t_a, t_c, t_e, t_c) == formula


@given(layers=LAYERS, micro_batches=MICRO_BATCHES, t_a=SOME, t_e=SOME, t_c=ANY)
def test_megascale_is_too_short_exactly_where_a_round_trip_is_longer_or_the_link_is_slower(
    layers: int, micro_batches: int, t_a: int, t_e: int, t_c: int
) -> None:
    formula = closed_schedules.megascale_step(layers, micro_batches, t_a, t_e, t_c)
    most = max(t_a, t_e)
    keeps_up = micro_batches * most >= t_a + t_e + 2 * t_c and (t_c <= most or micro_batches == 1)
    assert (makespan(layers, micro_batches, t_a, t_c, t_e, t_c) == formula) == keeps_up


@given(t_a=SOME, t_e=SOME, t_c=ANY)
def test_megascales_least_m_is_the_least_that_keeps_its_condition(t_a: int, t_e: int, t_c: int) -> None:
    assume(t_c <= max(t_a, t_e))
    least = closed_schedules.megascale_least_micro_batches(t_a, t_e, t_c)
    assert closed_schedules.megascale_holds(least, t_a, t_e, t_c)
    assert not closed_schedules.megascale_holds(least - 1, t_a, t_e, t_c)


def test_megascale_needs_three_or_four_micro_batches() -> None:
    assert closed_schedules.megascale_least_micro_batches(10, 10, 4) == 3
    assert closed_schedules.megascale_least_micro_batches(10, 10, 6) == 4
    with pytest.raises(StageError, match="are 0 ps"):
        closed_schedules.megascale_least_micro_batches(0, 0, 1)


@given(layers=LAYERS, time=SOME, down=ANY, up=ANY)
def test_three_micro_batches_hide_links_exactly_where_step3s_rule_holds(
    layers: int, time: int, down: int, up: int
) -> None:
    stages = Stages(time, down, time, up)
    plan = PingPongPlan(layers=(stages,) * layers, micro_batches=3)
    assert (steady_period(plan) == 3 * layers * time) == closed_schedules.step3_holds(stages)
    if closed_schedules.step3_holds(stages):
        assert run(plan).makespan == (3 * layers + 1) * time + down + up


def test_step3s_stage_is_273_us() -> None:
    tpot = 50 * 10**9  # 50 ms in picoseconds
    assert round(closed_schedules.step3_stage(tpot, 61) / 10**6) == 273
    whole = int(closed_schedules.step3_stage(tpot, 61))
    plan = PingPongPlan(layers=(Stages(whole, whole // 3, whole, 2 * whole // 3),) * 61, micro_batches=3)
    assert 0 <= tpot - steady_period(plan) < 200  # what rounding a stage down to picoseconds loses


@given(
    layers=LAYERS,
    micro_batches=st.integers(1, 4),
    fmha=SOME,
    dense=SOME,
    experts=ANY,
    transfer=ANY,
    ratio=st.fractions(1, 2, max_denominator=4),
)
def test_fastafds_step_is_the_period_exactly_while_attention_is_the_longest(
    layers: int, micro_batches: int, fmha: int, dense: int, experts: int, transfer: int, ratio: Fraction
) -> None:
    unit = micro_batches * ratio.denominator  # so that a micro-batch's share of the time is whole
    t_a = int(ratio * fmha * unit / micro_batches) + dense * unit
    stages = Stages(t_a, transfer, experts * unit, transfer)
    period = steady_period(PingPongPlan(layers=(stages,) * layers, micro_batches=micro_batches))
    identity = closed_forms.fastafd_step(
        ratio, Fraction(layers * fmha * unit), Fraction(layers * dense * unit), micro_batches
    )
    longest = max(stages.times) == t_a and micro_batches * t_a >= sum(stages.times)
    assert (period == identity) == longest
    assert period >= identity


def test_fastafds_speedup_is_that_of_its_first_system() -> None:
    """Shares 43.4 and 16.2 %, 1.5 times the batch, two micro-batches, 17 attention devices to one."""
    found = closed_forms.fastafd_speedup(Fraction(3, 2), Fraction("0.434"), Fraction("0.162"), 2, 17)
    assert round(float(found), 3) == 1.453


@given(layers=LAYERS, micro_batches=MICRO_BATCHES, t_a=SOME, down=ANY, t_f=SOME, up=ANY)
def test_aiconfigurators_optimistic_step_is_the_schedule_unless_it_counts_both_links_as_one(
    layers: int, micro_batches: int, t_a: int, down: int, t_f: int, up: int
) -> None:
    stages = Stages(t_a, down, t_f, up)
    estimate = closed_forms.aiconfigurator(layers, micro_batches, stages)
    assume(estimate.optimistic)
    found = makespan(layers, micro_batches, *stages.times)
    assert found <= estimate.step
    if down + up <= max(t_a, t_f):
        assert found == estimate.step


@given(layers=LAYERS, t_a=SOME, down=SOME, t_f=SOME, up=SOME)
def test_aiconfigurators_conservative_step_is_exact_for_two_micro_batches_in_balance(
    layers: int, t_a: int, down: int, t_f: int, up: int
) -> None:
    """Where t_a + t_a2f = t_f + t_f2a, two micro-batches change places after that time."""
    assume(t_a + down >= up)
    stages = Stages(t_a, down, t_a + down - up, up)
    estimate = closed_forms.aiconfigurator(layers, 2, stages)
    assert not estimate.optimistic
    assert estimate.t_cycle == t_a + down
    assert (
        steady_period(PingPongPlan(layers=(stages,) * layers, micro_batches=2))
        == 2 * layers * estimate.t_cycle
    )


def test_the_best_ratio_is_the_largest_of_its_three() -> None:
    line = closed_forms.LinearTime
    attention, transfer = (
        line(slope=Fraction(1, 100), fixed=Fraction(5)),
        line(slope=Fraction(0), fixed=Fraction(0)),
    )
    ffn = line(slope=Fraction(1, 10), fixed=Fraction(9))
    by_attention = closed_forms.best_ratio(attention, ffn, transfer, Fraction(10_000), 100)
    assert by_attention == Fraction(5 + 100 - 9, 10)
    slow = line(slope=Fraction(2), fixed=Fraction(1))
    assert closed_forms.best_ratio(attention, ffn, slow, Fraction(10_000), 100) == Fraction(201 - 9, 10)
    by_root = closed_forms.best_ratio(
        line(slope=Fraction(0), fixed=Fraction(0)), ffn, transfer, Fraction(0), 100
    )
    assert by_root == pytest.approx(0.9**0.5)
    with pytest.raises(StageError, match="above 0"):
        closed_forms.best_ratio(
            attention, line(slope=Fraction(0), fixed=Fraction(1)), transfer, Fraction(1), 1
        )


@given(ratio=st.integers(1, 40))
def test_no_whole_ratio_gives_more_per_device_than_the_two_beside_the_best(ratio: int) -> None:
    line = closed_forms.LinearTime
    attention = line(slope=Fraction(1, 50), fixed=Fraction(7))
    ffn, transfer = (
        line(slope=Fraction(1, 3), fixed=Fraction(20)),
        line(slope=Fraction(1, 9), fixed=Fraction(30)),
    )
    kv_tokens, batch = Fraction(9_000), 32

    def per_device(r: Fraction | int) -> float:
        period = max(attention.at(kv_tokens), ffn.at(r * batch), transfer.at(batch))
        return float(r * batch / ((r + 1) * period))

    best = closed_forms.best_ratio(attention, ffn, transfer, kv_tokens, batch)
    assert per_device(best) >= per_device(ratio)


def test_the_dead_zone_says_which_condition_fails() -> None:
    assert closed_forms.dead_zone(Stages(10, 2, 10, 2), 12) == ()
    assert closed_forms.dead_zone(Stages(13, 2, 10, 2), 12) == (
        "dead zone: max(t_a, t_f, t_c) <= t_B fails: 13 ps > 12 ps",
    )
    (slow_link,) = closed_forms.dead_zone(Stages(10, 6, 12, 6), 12)
    assert "t_f + t_c <= 2 t_a fails: 24 ps > 20 ps" in slow_link
    assert len(closed_forms.dead_zone(Stages(20, 9, 1, 9), 12)) == 2
    assert closed_forms.dead_zone_slot(50 * 10**9, Fraction(17, 10), 10**9, 61) == Fraction(84 * 10**9, 183)


def test_a_verify_step_gives_one_token_and_those_accepted() -> None:
    assert closed_forms.tokens_per_verify(Fraction(0), 3) == 1
    assert closed_forms.tokens_per_verify(Fraction(1), 3) == 4
    assert closed_forms.tokens_per_verify(Fraction(9, 10), 1) == Fraction(19, 10)
    half = Fraction(1, 2)
    assert closed_forms.tokens_per_verify(half, 5) == (1 - half**6) / (1 - half)
