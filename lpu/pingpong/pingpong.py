"""Ping-pong of micro-batches between an attention pool and an FFN pool: the event schedule of its steps.

Four resources serve one micro-batch at a time, always in the same order (step, layer, micro-batch): the
attention pool, the link down to the FFN pool, the FFN pool, the link up. A stage begins when its micro-batch
is there and its resource is free. Time is integer picoseconds. The closed forms of
`tests/lpu/closed_schedules.py` are limits of this schedule. Source: facts/afd.md sections 0 and 1.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lpu.pingpong.stages import RESOURCES, PingPongPlan, StageError, Stages, Timeline

NEVER = -(1 << 200)
"""No path; any sum with it stays below NEVER / 2 as long as times are below 2 ** 198."""


def schedule(
    layers: Sequence[Stages], micro_batches: int, *, embed: int = 0, head: int = 0, steps: int = 1
) -> Timeline:
    """When every stage of every micro-batch runs; time 0 is when all of them may enter. Raises StageError.

    The end is when the last token is out: after the last link up, or the head after it. With t_dn = t_up = 0
    that is the end of the last FFN stage.
    """
    plan = PingPongPlan(
        layers=tuple(layers), micro_batches=micro_batches, embed=embed, head=head, steps=steps
    )
    return run(plan)


def run(plan: PingPongPlan) -> Timeline:
    """The event schedule of a plan; see `schedule`."""
    columns = tuple(plan.columns)
    state = [0] * (len(RESOURCES) + plan.micro_batches)
    ends: list[int] = []
    for _ in range(plan.steps):
        state = _step(columns, state, ends)
    rows = len(columns) * plan.micro_batches
    resource, layer, time = (
        np.tile(np.repeat(np.array(values, dtype=np.int64), plan.micro_batches), plan.steps)
        for values in zip(*(column[:3] for column in columns), strict=True)
    )
    end = np.array(ends, dtype=np.int64)
    return Timeline(
        step=np.repeat(np.arange(plan.steps, dtype=np.int64), rows),
        resource=resource,
        layer=layer,
        micro_batch=np.tile(np.arange(plan.micro_batches, dtype=np.int64), len(columns) * plan.steps),
        start=end - time,
        end=end,
        steps=plan.steps,
        micro_batches=plan.micro_batches,
    )


def exposed_transfer(plan: PingPongPlan) -> int:
    """Picoseconds that the schedule would save if the links took no time."""
    return run(plan).makespan - run(plan.without_transfers()).makespan


def steady_period(plan: PingPongPlan) -> Fraction:
    """Time from a token to the next of its micro-batch in steady state (TPOT), exact, whatever the steps.

    A step maps the moments when resources are free and tokens are out to those of the next step, by sums and
    maxima: the period is the greatest cycle mean of that map.
    """
    columns = tuple(plan.columns)
    size = len(RESOURCES) + plan.micro_batches
    units = ([0 if i == j else NEVER for j in range(size)] for i in range(size))
    return greatest_cycle_mean([_step(columns, unit, []) for unit in units])


def period_bounds(plan: PingPongPlan) -> dict[str, int]:
    """Lower bounds of the steady period: work of each resource in a step, and one micro-batch's round trip.

    Keys: the names of RESOURCES, and `latency`.
    """
    work = [0] * len(RESOURCES)
    late = 0
    for resource, _, time, delay in plan.columns:
        work[resource] += time
        late += delay
    bounds = {name: plan.micro_batches * time for name, time in zip(RESOURCES, work, strict=True)}
    return bounds | {"latency": sum(work) + late}


def balance(plan: PingPongPlan) -> Fraction:
    """FFN work over attention work of a step, t_f / t_a; 1 is balanced. Raises StageError without attention.

    The operating rule is not balance but t_f + t_c <= t_a. Source: facts/afd.md sections 0 (rule 3) and 1.6.
    """
    bounds = period_bounds(plan)
    if not bounds["attention"]:
        raise StageError("pingpong: balance: attention takes 0 ps, needs 1 or more. Give its time.")
    return Fraction(bounds["ffn"], bounds["attention"])


def greatest_cycle_mean(matrix: Sequence[Sequence[int]]) -> Fraction:
    """Time per round of x'[j] = max over i of x[i] + matrix[i][j], after enough rounds; NEVER: no dependence.

    Karp's algorithm over walks of 0 to n edges that may begin anywhere. Raises ValueError without a cycle.
    Source: R. M. Karp, A characterization of the minimum cycle mean in a digraph, Discrete Mathematics 1978.
    """
    nodes = range(len(matrix))
    best = [[0] * len(matrix)]
    for _ in nodes:
        last = best[-1]
        best.append([max(last[i] + matrix[i][j] for i in nodes) for j in nodes])
    found = [
        min(Fraction(best[-1][j] - best[k][j], len(matrix) - k) for k in nodes if best[k][j] > NEVER // 2)
        for j in nodes
        if best[-1][j] > NEVER // 2
    ]
    if not found:
        raise ValueError("max_plus: no cycle, so nothing repeats")
    return max(found)


def _step(columns: Sequence[tuple[int, int, int, int]], state: list[int], ends: list[int]) -> list[int]:
    """The state after a step: when each resource is free, then each token out. Appends to `ends`."""
    free, ready = state[: len(RESOURCES)], state[len(RESOURCES) :]
    for resource, _, time, delay in columns:
        moment, done = free[resource], []
        for here in ready:
            moment = (here if here > moment else moment) + time
            done.append(moment)
        free[resource], ready = moment, [here + delay for here in done]
        ends += done
    return free + ready
