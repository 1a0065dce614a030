"""The modelled time of served sequences: the same slots and prefills as those of a replay.

A sequence that states its arrival is timed alone, on an idle machine, unless its run states how many requests
it has: then all of them are simulated together. Others queue behind one another by the wall clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from lpu.traffic.served import Served
from lpu.traffic.simulation.simulate import simulate
from lpu.traffic.trace import Trace

NS_PER_SECOND = 10**9


class SlotTimes(NamedTuple):
    """Cycles of a sequence: arrival, begin of its prefill or prompt, first new token, from token to token."""

    arrival: int
    begin: int
    first: int
    turn: int

    def at(self, place: int) -> int:
        """When new token `place` is there."""
        return self.first + place * self.turn


class TimedSequence(NamedTuple):
    """What is timed: arrival in cycles, tokens of the prompt, new tokens, and what orders equal arrivals."""

    arrival: int
    prompt: int
    new: int
    order: tuple[Any, ...] = ()


@dataclass(slots=True)
class LiveClock:
    """Slots by the wall clock: a free slot is known by the cycle of its last step."""

    machine: Served
    free: list[tuple[int, int]] = field(init=False)
    replicas: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.free = [(0, slot) for slot in range(self.machine.slots)]
        self.replicas = [0] * (self.machine.prefill.replicas if self.machine.prefill else 0)
        heapify(self.free)

    def take(self, arrival: int, prompt: int) -> tuple[int, SlotTimes]:
        """The slot that is free first, and the times of a sequence in it."""
        pace = self.machine.paces[-1]
        since, slot = heappop(self.free)
        prefill = self.machine.prefill
        if prefill is None:
            begin, ready, steps = max(arrival, since), max(arrival, since), prompt
        else:
            cost = prefill.cost(prompt, 0)
            begin = max(arrival, heappop(self.replicas))
            heappush(self.replicas, begin + cost.compute)
            ready, steps = max(begin + cost.compute + cost.exposed, since + cost.handover), 1
        offset = slot // self.machine.rows * pace.interval
        joined = -(-(ready - offset) // pace.turn) * pace.turn + offset
        first = joined + (steps - 1) * pace.turn + pace.step
        return slot, SlotTimes(arrival, begin, first, pace.turn)

    def give(self, slot: int, until: int) -> None:
        """The slot is free from that cycle on."""
        heappush(self.free, (until, slot))


def alone(machine: Served, arrival: int, prompt: int) -> SlotTimes:
    """A sequence on a machine that is idle when it comes."""
    pace = machine.paces[-1]
    if machine.prefill is None:
        return SlotTimes(arrival, arrival, arrival + (prompt - 1) * pace.turn + pace.step, pace.turn)
    cost = machine.prefill.cost(prompt, 0)
    return SlotTimes(arrival, arrival, arrival + cost.compute + cost.exposed + pace.step, pace.turn)


def together(machine: Served, every: Sequence[TimedSequence]) -> list[SlotTimes]:
    """Sequences that share the machine, in the order given; whatever that is, each has the same times."""
    order = sorted(range(len(every)), key=lambda i: (every[i].arrival, every[i].order))
    column = [np.array([every[i][field] for i in order], np.int64) for field in range(3)]
    found = simulate(
        Trace(name="served", arrivals=column[0], inputs=column[1], outputs=np.maximum(column[2], 1)),
        machine,
        cycles=True,
    )
    pace = machine.paces[-1]
    times = [SlotTimes(0, 0, 0, 0)] * len(every)
    for place, i in enumerate(order):
        at = int(found.arrived[place]), int(found.started[place]), int(found.first[place])
        times[i] = SlotTimes(*at, pace.turn)
    return times


def cycles_of(nanoseconds: int, clock_hz: int) -> int:
    """The first cycle at or after a moment."""
    return -(-nanoseconds * clock_hz // NS_PER_SECOND)
