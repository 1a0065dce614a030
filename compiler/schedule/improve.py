"""Improvement: the order in which units take rows, found by scheduling a block from its end, and once more.

A list schedule starts rows as soon as it can, in the order of their index; on a busy unit a row that much
waits for may come after one that could be later. Scheduled backwards from the end, with those first that end
last, every row comes as late as it can: its cycle is how urgent it is. Rows, lanes and routes stay.
Source: forward-backward improvement (Li and Willis 1992; Tormos and Lova 2001) of project schedules.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Int

from compiler.schedule.dispatch import dispatch

ROWS = 100_000  # that are scheduled again for one block, at most; but one way back and forth always
HELPS = 512  # a way back and forth is the last if it takes less than this part off the schedule

Cycles = Int[np.ndarray, " rows"]
Found = tuple[Cycles, Int[np.ndarray, " rows"]]
"""(start, first instance) per row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Rows as `dispatch` takes them; edges by their earlier rows."""

    edges: Int[np.ndarray, "edges 2"]
    resource: Int[np.ndarray, " rows"]
    hold: Cycles
    latency: Cycles
    width: Int[np.ndarray, " rows"]
    free: dict[int, int]

    def cycles(self, start: Cycles) -> int:
        """Length of a schedule."""
        return int((start + self.latency).max(initial=0))

    def chains(self, start: Cycles) -> Cycles:
        """The longest chain of rows that begins with each; start: of any schedule, for the order of rows."""
        edges = self.edges.tolist()
        out = self.latency.tolist()
        latency = self.latency.tolist()
        for one in np.argsort(start[self.edges[:, 0]], kind="stable")[::-1].tolist():
            earlier, later = edges[one]
            out[earlier] = max(out[earlier], latency[earlier] + out[later])
        return np.array(out, np.int64)

    def forwards(self, urgency: Cycles) -> Found:
        """The list schedule in which a unit takes the ready row of least urgency number."""
        return self._ordered(urgency, self.edges, self.latency, None)

    def backwards(self, start: Cycles) -> Found:
        """The list schedule from the end of another, in which a unit takes the row that starts last there.

        Seen from the end a row first waits until its result is there, then keeps its unit.
        """
        end, place = self._ordered(
            -start - self.hold, self.edges[:, ::-1], self.hold, self.latency - self.hold
        )
        last = int((end + self.hold).max(initial=0))
        return last - end - self.hold, place

    def _ordered(self, urgency: Cycles, edges: np.ndarray, latency: Cycles, delay: Cycles | None) -> Found:
        order = np.argsort(urgency, kind="stable")
        index = np.empty_like(order)
        index[order] = np.arange(len(order))
        edges = index[edges]
        start, place = dispatch(
            edges[np.argsort(edges[:, 0], kind="stable")],
            self.resource[order].tolist(),
            self.hold[order].tolist(),
            latency[order].tolist(),
            self.width[order].tolist(),
            dict(self.free),
            delay=None if delay is None else delay[order].tolist(),
        )
        return start[index], place[index]


def improve(jobs: Jobs, first: Found, fits: Callable[[Cycles], bool]) -> Found:
    """The shortest schedule tried that fits the activation ports; the first one if none is shorter."""
    best, least = first, jobs.cycles(first[0])
    passes = max(ROWS // max(len(first[0]), 1), 2)
    for found in islice(_others(jobs, first[0]), passes):
        if (cycles := jobs.cycles(found[0])) < least and fits(found[0]):
            best, least = found, cycles
    return best


def _others(jobs: Jobs, first: Cycles) -> Iterator[Found]:
    """Back and forth from the first schedule once; then from that of the longest chains while it helps."""
    back = jobs.backwards(first)
    yield back
    yield jobs.forwards(back[0])
    found = jobs.forwards(-jobs.chains(first))
    yield found
    least = gain = jobs.cycles(found[0])
    while gain > least // HELPS:
        back = jobs.backwards(found[0])
        yield back
        found = jobs.forwards(back[0])
        yield found
        shorter = min(least, jobs.cycles(back[0]), jobs.cycles(found[0]))
        least, gain = shorter, least - shorter
