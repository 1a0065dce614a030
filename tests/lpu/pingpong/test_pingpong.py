"""The event schedule of ping-pong: rules of the schedule itself, steps in a row, the exact period."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from work import calls

from lpu.pingpong.pingpong import (
    NEVER,
    balance,
    exposed_transfer,
    greatest_cycle_mean,
    period_bounds,
    run,
    schedule,
    steady_period,
)
from lpu.pingpong.stages import ATTENTION, FFN, RESOURCES, PingPongPlan, StageError, Stages, Timeline

TIMES = st.integers(0, 50)
# Records are built in the tests: checking their types draws random numbers, not allowed in strategies.
PLANS = st.fixed_dictionaries(
    {
        "layers": st.lists(st.tuples(TIMES, TIMES, TIMES, TIMES), min_size=1, max_size=5),
        "micro_batches": st.integers(1, 4),
        "embed": TIMES,
        "head": TIMES,
        "steps": st.integers(1, 4),
    }
)


def token_out(timeline: Timeline) -> np.ndarray:
    """When each token is out, [steps, micro-batches]: the end of the last stage of its step."""
    return timeline.end.reshape(timeline.steps, -1)[:, -timeline.micro_batches :]


def plan_of(numbers: dict[str, Any]) -> PingPongPlan:
    layers = tuple(Stages(*times) for times in numbers["layers"])
    return replace(
        PingPongPlan(layers=layers, micro_batches=1), **{k: numbers[k] for k in numbers if k != "layers"}
    )


def rows(timeline: Timeline) -> list[tuple[int, ...]]:
    columns = (timeline.step, timeline.layer, timeline.resource, timeline.micro_batch)
    return list(zip(*(column.tolist() for column in (*columns, timeline.start, timeline.end)), strict=True))


def test_two_layers_of_two_micro_batches_by_hand() -> None:
    """t_a 4, t_dn 1, t_f 3, t_up 2: attention works until 8, waits for the first until 10, and so on."""
    timeline = schedule([Stages(4, 1, 3, 2)] * 2, 2)
    attention = timeline.of(ATTENTION)
    assert timeline.start[attention].tolist() == [0, 4, 10, 14]
    assert timeline.start[timeline.of(FFN)].tolist() == [5, 9, 15, 19]
    assert timeline.makespan == 24
    assert timeline.busy == {"attention": 16, "down": 4, "ffn": 12, "up": 8}
    assert timeline.bubble == 8
    assert timeline.bubble_share == Fraction(1, 3)
    assert "attention idle 33.3%" in str(timeline)


@given(numbers=PLANS)
def test_no_resource_serves_two_and_no_stage_begins_before_the_one_before_it(numbers: dict[str, Any]) -> None:
    plan = plan_of(numbers)
    timeline = run(plan)
    for resource in range(len(RESOURCES)):
        own = timeline.of(resource)
        assert (timeline.start[own][1:] >= timeline.end[own][:-1]).all()
    for micro_batch in range(plan.micro_batches):
        own = timeline.micro_batch == micro_batch
        assert (timeline.start[own][1:] >= timeline.end[own][:-1]).all()


@given(numbers=PLANS)
def test_a_stage_waits_for_its_micro_batch_or_its_resource_and_for_nothing_else(
    numbers: dict[str, Any],
) -> None:
    plan = plan_of(numbers)
    free: dict[int, int] = {}
    there: dict[int, int] = {}
    for _, _, resource, micro_batch, start, end in rows(run(plan)):
        assert start == max(free.get(resource, 0), there.get(micro_batch, 0))
        free[resource] = there[micro_batch] = end


@given(numbers=PLANS)
def test_every_stage_has_its_time_and_all_are_there(numbers: dict[str, Any]) -> None:
    plan = plan_of(numbers)
    timeline = run(plan)
    stages = 4 * len(plan.layers) + bool(plan.head)
    assert len(timeline.start) == plan.steps * plan.micro_batches * stages
    times = {name: plan.steps * time for name, time in period_bounds(plan).items() if name != "latency"}
    assert timeline.busy == times
    assert timeline.makespan == timeline.end.max()


def test_layers_may_differ_and_the_ends_of_the_model_are_attention_time() -> None:
    timeline = schedule([Stages(5, 0, 1, 0), Stages(1, 0, 7, 0)], 1, embed=10, head=20)
    assert rows(timeline)[0] == (0, 0, ATTENTION, 0, 0, 15)
    assert rows(timeline)[-1] == (0, 2, ATTENTION, 0, 24, 44)


def test_a_step_of_a_micro_batch_begins_when_its_token_is_out() -> None:
    timeline = schedule([Stages(4, 1, 3, 2)], 2, head=5, steps=3)
    begins = [row for row in rows(timeline) if row[1] == 0 and row[2] == ATTENTION]
    for step, _, _, micro_batch, start, _ in begins:
        if step:
            assert start >= token_out(timeline)[step - 1, micro_batch]


@given(numbers=PLANS)
def test_the_exact_period_is_what_many_steps_tend_to(numbers: dict[str, Any]) -> None:
    """Each token of n steps is within a constant of n periods, so the mean over many steps comes close."""
    plan = plan_of(numbers)
    steps = 60
    long = run(replace(plan, steps=steps))
    period = steady_period(plan)
    transient = 2 * sum(period_bounds(plan).values())
    assert abs(long.makespan - steps * period) <= transient
    last = np.diff(token_out(long)[:, 0])[-12:]
    assert last.min() <= period <= last.max()


@pytest.mark.slow
@given(numbers=PLANS)
def test_no_period_is_below_its_bounds(numbers: dict[str, Any]) -> None:
    plan = plan_of(numbers)
    assert steady_period(plan) >= max(period_bounds(plan).values())


def test_a_period_may_be_longer_than_any_of_its_bounds() -> None:
    """A slow FFN in one layer and slow attention in the other: micro-batches wait for each other's order."""
    plan = PingPongPlan(layers=(Stages(1, 0, 10, 0), Stages(10, 0, 1, 0)), micro_batches=2)
    assert max(period_bounds(plan).values()) == 22
    assert steady_period(plan) > 22


def test_exposed_transfer_is_all_of_it_with_one_micro_batch_and_the_last_with_enough() -> None:
    layers = (Stages(10, 2, 10, 3),) * 4
    assert exposed_transfer(PingPongPlan(layers=layers, micro_batches=1)) == 4 * 5
    assert exposed_transfer(PingPongPlan(layers=layers, micro_batches=3)) == 5


def test_balance_is_ffn_over_attention() -> None:
    assert balance(PingPongPlan(layers=(Stages(4, 1, 3, 1),) * 2, micro_batches=2)) == Fraction(3, 4)
    with pytest.raises(StageError, match="attention takes 0 ps"):
        balance(PingPongPlan(layers=(Stages(0, 1, 3, 1),), micro_batches=2))


def test_impossible_plans_are_refused_in_a_line() -> None:
    with pytest.raises(StageError, match="down: takes -1 ps"):
        Stages(1, -1, 1, 1)
    with pytest.raises(StageError, match="micro_batches: is 0, needs 1"):
        schedule([Stages(1, 1, 1, 1)], 0)
    with pytest.raises(StageError, match="layers: there are 0"):
        schedule([], 1)


def test_the_same_plan_has_the_same_bytes() -> None:
    plan = PingPongPlan(layers=(Stages(7, 1, 5, 2),) * 3, micro_batches=3, embed=1, head=2, steps=4)
    assert run(plan).start.tobytes() == run(plan).start.tobytes()


def test_the_work_of_a_schedule_grows_no_faster_than_its_layers() -> None:
    few, many = (PingPongPlan(layers=(Stages(100, 10, 90, 12),) * n, micro_batches=4) for n in (16, 128))
    assert calls(lambda: run(many)) <= 8 * calls(lambda: run(few))


def test_the_greatest_cycle_mean_of_a_small_matrix() -> None:
    assert greatest_cycle_mean([[1, 5], [2, 0]]) == Fraction(7, 2)
    assert greatest_cycle_mean([[4, 5], [NEVER, 3]]) == 4
    with pytest.raises(ValueError, match="no cycle"):
        greatest_cycle_mean([[NEVER, 1], [NEVER, NEVER]])
