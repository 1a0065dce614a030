"""The modelled time of served sequences: the same slots and prefills as those of a replay.

A sequence that states its arrival is timed alone, on an idle machine, unless its run states how many requests
it has: then all of them are simulated together. Others queue behind one another by the wall clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from lpu.afd.beside import ServedMode
from lpu.gpu.units import PS_PER_SECOND
from lpu.traffic.beside import served_beside
from lpu.traffic.served import Served, StepPace
from lpu.traffic.simulation.simulate import simulate
from lpu.traffic.trace import Trace

NS_PER_SECOND = 10**9


class SlotTimes(NamedTuple):
    """Cycles of a sequence: arrival, begin of its prefill or prompt, first new token, from step to step.

    pause: between the first token and the step after it, besides.
    """

    arrival: int
    begin: int
    first: int
    turn: int
    pause: int = 0

    def at(self, step: int) -> int:
        """When what step `step` after that of the first new token gives is there."""
        return self.first + (self.pause if step else 0) + step * self.turn


class TimedSequence(NamedTuple):
    """What is timed: arrival in cycles, tokens of the prompt, new tokens, and what orders equal arrivals.

    steps: after that of the first token, where they are not one for each other token.
    priority: the lower, the sooner it begins.
    """

    arrival: int
    prompt: int
    new: int
    order: tuple[Any, ...] = ()
    steps: int | None = None
    priority: int = 0

    @property
    def taken(self) -> int:
        """Steps after that of the first token."""
        return max(self.new - 1, 0) if self.steps is None else self.steps

    @property
    def middle(self) -> int:
        """The mean length of its KV."""
        return self.prompt + self.new // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTimes:
    """A machine in time.

    turn: cycles from step to step at (tokens of KV), where the first token is that of a prefill on GPUs.
    None: the machine's own steps give it, all of one length.
    """

    machine: Served
    turn: Callable[[int], int] | None = None

    def paced(self, kv: int) -> Served:
        """The machine with the steps of that length of KV."""
        if self.turn is None:
            return self.machine
        turn = self.turn(min(kv, self.machine.longest))
        return replace(self.machine, paces=(StepPace(self.machine.longest, turn, turn, turn),))


def times_beside(beside: ServedMode, batch: int, longest: int, *, exact: bool) -> ServedTimes:
    """A mode in time. exact: its rounds are known, else a token takes what it takes on average."""
    clock_hz = beside.program.manifest.clock_hz
    step = beside.round if exact and beside.round is not None else beside.turn

    def turn(kv: int) -> int:
        return max(-(-step(kv) * clock_hz // PS_PER_SECOND), 1)

    return ServedTimes(machine=served_beside(beside, batch, (longest,), step), turn=turn)


@dataclass(slots=True)
class LiveClock:
    """Slots by the wall clock: a free slot is known by the cycle of its last step."""

    times: ServedTimes
    machine: Served = field(init=False)
    free: list[tuple[int, int]] = field(init=False)
    replicas: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.machine = self.times.machine
        self.free = [(0, slot) for slot in range(self.machine.slots)]
        self.replicas = [0] * (self.machine.prefill.replicas if self.machine.prefill else 0)
        heapify(self.free)

    def take(self, arrival: int, prompt: int, most: int, held: int = 0) -> tuple[int, SlotTimes]:
        """The slot that is free first, and the times of a sequence of at most this many new tokens in it.

        held: of the prompt, tokens whose KV the GPUs have.
        """
        pace = self.times.paced(prompt + most // 2).paces[-1]
        since, slot = heappop(self.free)
        prefill = self.machine.prefill
        computed = 0
        if prefill is None:
            begin, ready, steps = max(arrival, since), max(arrival, since), prompt
        else:
            cost = prefill.cost(prompt, held)
            begin = max(arrival, heappop(self.replicas))
            computed = begin + cost.compute
            heappush(self.replicas, computed)
            ready, steps = max(computed + cost.exposed, since + cost.handover), 1
        offset = slot // self.machine.rows * pace.interval
        joined = -(-(ready - offset) // pace.turn) * pace.turn + offset
        first = joined + (steps - 1) * pace.turn + pace.step
        if self.times.turn is None:
            return slot, SlotTimes(arrival, begin, first, pace.turn)
        return slot, SlotTimes(arrival, begin, computed, pace.turn, joined - computed)

    def give(self, slot: int, until: int) -> None:
        """The slot is free from that cycle on."""
        heappush(self.free, (until, slot))


def alone(times: ServedTimes, one: TimedSequence) -> SlotTimes:
    """A sequence on a machine that is idle when it comes."""
    machine, arrival = times.paced(one.middle), one.arrival
    pace, prefill = machine.paces[-1], machine.prefill
    if prefill is None:
        return SlotTimes(arrival, arrival, arrival + (one.prompt - 1) * pace.turn + pace.step, pace.turn)
    cost = prefill.cost(one.prompt, 0)
    if times.turn is not None:
        return SlotTimes(arrival, arrival, arrival + cost.compute, pace.turn, cost.exposed)
    return SlotTimes(arrival, arrival, arrival + cost.compute + cost.exposed + pace.step, pace.turn)


def together(times: ServedTimes, every: Sequence[TimedSequence]) -> list[SlotTimes]:
    """Sequences that share the machine, in the order given; whatever that is, each has the same times.

    Where steps depend on the length of the KV they are those of the longest sequence. Steps that a prefill of
    another stopped count before the second token.
    """
    if not every:
        return []
    machine = times.paced(max(one.middle for one in every))
    order = sorted(range(len(every)), key=lambda i: (every[i].arrival, every[i].priority, every[i].order))
    rows = [every[i] for i in order]
    found = simulate(
        Trace(
            name="served",
            arrivals=np.array([one.arrival for one in rows], np.int64),
            inputs=np.array([one.prompt for one in rows], np.int64),
            outputs=np.array([one.taken + 1 for one in rows], np.int64),
            priorities=np.array([one.priority for one in rows], np.int64),
        ),
        machine,
        cycles=True,
    )
    turn = machine.paces[-1].turn
    made = [SlotTimes(0, 0, 0, 0)] * len(every)
    columns = (found.arrived, found.started, found.first, found.last)
    for i, arrived, started, first, last in zip(order, *(one.tolist() for one in columns), strict=True):
        pause = last - first - every[i].taken * turn if machine.gpus_step else 0
        made[i] = SlotTimes(arrived, started, first, turn, pause)
    return made


def cycles_of(nanoseconds: int, clock_hz: int) -> int:
    """The first cycle at or after a moment."""
    return -(-nanoseconds * clock_hz // NS_PER_SECOND)
