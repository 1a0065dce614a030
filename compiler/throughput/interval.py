"""Intervals: how often a new wave may enter, found by placing all stages on rings of that length."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

from compiler.errors import CompileError
from compiler.program.isa import LINK, ceil_div
from compiler.scheduled import Busiest
from compiler.steps import Progress
from compiler.throughput.cache import StageCache
from compiler.throughput.modulo import PlacedRows
from compiler.throughput.problem import CLASS_NAMES, Load
from compiler.throughput.rings import Rings

MOST_OF_BOUND = 4  # an interval this many times its bound is given up
COARSE = 128  # of the shortest interval, the first step to a longer one
FINE = 512  # of it, how far an interval with room may be from one without

T = TypeVar("T")
Placed = tuple[list[int], list[tuple[int, PlacedRows]], int]
"""Bases and placements of all stages, and the cycles of a wave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An interval at which all stages fit: per stage its base and its rows, the cycles of a wave."""

    interval: int
    bound: int
    what: Busiest
    bases: list[int]
    placed: list[tuple[int, PlacedRows]]
    cycles: int

    def __str__(self) -> str:
        bound = f"at least {self.bound}, by {self.what}"
        return f"a wave of {self.cycles} cycles may enter every {self.interval} cycles ({bound})"


def find_intervals(stages: StageCache, slack: Mapping[int, float], progress: Progress) -> dict[int, Interval]:
    """The shortest interval found for each context bucket, from its bound times its slack on.

    Raises CompileError if there is none.
    """
    return {context: _interval(stages, context, slack[context], progress) for context in slack}


def _interval(stages: StageCache, context: int, slack: float, progress: Progress) -> Interval:
    """The shortest interval found, from the bound (times the slack) on."""
    bodies = [stage.bodies[context].problem for stage in stages.lowered]
    loads = [stage.bodies[context].problem.loads for stage in stages.lowered]
    bound, what = largest_load((loads[index], chips) for index, chips in stages.calls)
    start = max(-int(-bound * Fraction(str(slack)) // 1), *(body.least for body in bodies))
    heavy = sorted(range(len(bodies)), key=lambda i: (-bodies[i].least, i))

    def at(interval: int) -> Placed | None:
        progress("interval", interval - start, start)
        return _at(stages, context, interval, heavy)

    found = shortest_interval(at, start)
    if found is None:
        raise CompileError(
            "interval",
            f"context {context}",
            f"no interval from {start} to {MOST_OF_BOUND * start} cycles has room for every row",
            "Raise --interval-slack, or change --tp or --pp.",
        )
    interval, (bases, placed, cycles) = found
    return Interval(interval=interval, bound=bound, what=what, bases=bases, placed=placed, cycles=cycles)


def shortest_interval(at: Callable[[int], T | None], start: int) -> tuple[int, T] | None:
    """The shortest interval found from `start` on at which `at` gives something, and what; None if none is.

    Longer and longer steps lead to the first that has room; between it and the last that had none, halves.
    """
    failed, interval, step = start - 1, start, max(1, start // COARSE)
    while (found := at(interval)) is None:
        failed, interval, step = interval, interval + step, ceil_div(5 * step, 4)
        if interval > MOST_OF_BOUND * start:
            return None
    while interval - failed > max(1, start // FINE):
        middle = (failed + interval) // 2
        shorter = at(middle)
        if shorter is None:
            failed = middle
        else:
            interval, found = middle, shorter
    return interval, found


def largest_load(calls: Iterable[tuple[Sequence[Load], tuple[int, ...]]]) -> tuple[int, Busiest]:
    """The largest load of any class of units or any link, all calls added up, and whose it is.

    calls: what each asks of the units of its ranks, and its chips by rank.
    """
    asked: dict[tuple[int, int, int], tuple[int, int]] = {}
    for loads, chips in calls:
        for load in loads:
            key = (load.kind, chips[load.rank], chips[load.peer] if load.kind == LINK else -1)
            asked[key] = (asked.get(key, (0, 0))[0] + load.cycles, load.instances)
    cycles, what = 1, Busiest()
    for (kind, chip, peer), (total, instances) in asked.items():
        if ceil_div(total, instances) > cycles:
            cycles = int(ceil_div(total, instances))
            what = Busiest(units=CLASS_NAMES[kind], chip=chip, peer=peer)
    return cycles, what


def _at(stages: StageCache, context: int, interval: int, heavy: list[int]) -> Placed | None:
    """All stages placed; None if one does not fit."""
    rows = [one.bodies[context].problem for one in stages.lowered]
    for index in heavy:  # on empty rings first: a stage that does not fit there cannot fit beside others
        chips = tuple(range(len(stages.lowered[index].router.chips)))
        if stages.place(index, context, interval, *Rings(interval).seen(rows[index], chips, 0)) is None:
            return None
    rings, base = Rings(interval), 0
    bases: list[int] = []
    out: list[tuple[int, PlacedRows]] = []
    for index, chips in stages.calls:
        number = stages.place(index, context, interval, *rings.seen(rows[index], chips, base))
        placed = None if number is None else stages.placed[number]
        if number is None or placed is None:
            return None
        rings.take(rows[index], chips, base, placed)
        bases.append(base)
        out.append((number, placed))
        base += int((placed.start + np.array(rows[index].problem.latency)).max(initial=0))
    return bases, out, base
