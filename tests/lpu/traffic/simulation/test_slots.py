"""Users in the slots of a program: against a simulation that walks turn by turn."""

from itertools import pairwise

import numpy as np
import pytest

from lpu.traffic.served import Served, StepPace
from lpu.traffic.simulation.simulate import simulate
from lpu.traffic.trace import Trace

HZ = 10**9  # a cycle is a nanosecond


def requests(arrivals: list[int], inputs: list[int], outputs: list[int]) -> Trace:
    """A trace; arrivals in cycles."""
    moments, prompts, news = (np.array(one, np.int64) for one in (arrivals, inputs, outputs))
    return Trace(name="made", arrivals=moments, inputs=prompts, outputs=news)


def drawn(seed: int, count: int = 60) -> Trace:
    draw = np.random.default_rng(seed)
    gaps, prompts, news = (
        draw.integers(0, 400, count),
        draw.integers(1, 40, count),
        draw.integers(1, 40, count),
    )
    return requests(np.cumsum(gaps).tolist(), prompts.tolist(), news.tolist())


def walked(trace: Trace, rows: int, steps: dict[int, int]) -> list[tuple[int, int]]:
    """(first, last) token of each request, one step after another, all rows in the bucket of the longest."""
    todo = list(zip(trace.arrivals, trace.inputs, trace.outputs, strict=True))
    first, last = [0] * len(todo), [0] * len(todo)
    at: dict[int, int] = {}
    now, coming = 0, 0
    while coming < len(todo) or at:
        if not at:
            now = max(now, int(todo[coming][0]))
        while coming < len(todo) and todo[coming][0] <= now and len(at) < rows:
            at[coming] = 0
            coming += 1
        now += steps[min(context for context in steps if context > max(at.values()))]
        for one in list(at):
            at[one] += 1
            _, prompt, new = todo[one]
            if at[one] == prompt:
                first[one] = now
            if at[one] == prompt + new - 1:
                last[one] = now
                del at[one]
    return list(zip(first, last, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_users_of_one_batch_step_together_in_the_bucket_of_the_longest(seed: int) -> None:
    trace, steps = drawn(seed), {8: 5, 30: 9, 80: 14}
    paces = tuple(StepPace(context, step, step, step) for context, step in steps.items())
    found = simulate(trace, Served(clock_hz=HZ, groups=1, rows=3, paces=paces))
    assert list(zip(found.first.tolist(), found.last.tolist(), strict=True)) == walked(trace, 3, steps)


def test_a_group_of_a_throughput_program_steps_once_a_turn() -> None:
    """By hand: groups enter at 0, 10, 20 of every turn of 40; a step takes 35."""
    machine = Served(clock_hz=HZ, groups=3, rows=1, paces=(StepPace(100, 10, 40, 35),))
    found = simulate(requests([7, 8, 40, 41], [1, 1, 1, 1], [3, 2, 1, 1]), machine)
    assert found.joined.tolist() == [7, 17, 67, 97]  # the last waits for the slot that is free at 82 + 10
    assert found.first.tolist() == [42, 52, 102, 132]
    assert found.last.tolist() == [122, 92, 102, 132]


@pytest.mark.parametrize("seed", range(4))
def test_no_user_steps_beyond_a_bucket_and_no_slot_is_held_twice(seed: int) -> None:
    trace = drawn(seed)
    paces = (StepPace(10, 4, 12, 11), StepPace(40, 6, 30, 27), StepPace(80, 9, 30, 29))
    found = simulate(trace, Served(clock_hz=HZ, groups=3, rows=2, paces=paces))
    turns = trace.inputs + trace.outputs - 1
    assert found.drains
    assert (found.last - found.joined >= (turns - 1) * 12 + 11).all()  # no step is shorter than the shortest
    assert (found.last - found.joined >= np.maximum(turns - 10, 0) * 30).all()
    assert found.occupancy()[1] <= 6
    assert all(a <= b for a, b in pairwise(found.joined.tolist()))  # first come, first served


def test_a_request_that_no_bucket_holds_and_one_that_finds_a_full_queue_are_not_served() -> None:
    machine = Served(clock_hz=HZ, groups=1, rows=1, paces=(StepPace(10, 5, 5, 5),), queue=1)
    found = simulate(requests([0, 1, 2, 3], [4, 10, 4, 4], [2, 2, 2, 2]), machine)
    assert found.status.tolist() == [0, 1, 0, 2]
    assert found.last.tolist() == [25, 0, 50, 0]
