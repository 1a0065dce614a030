"""The preloaded values as the checker looks at them: all of some chips at a time.

A chip's image is checked by itself, so those of a whole rack (millions of values) need never lie in memory.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from compiler.program import LOADS, Loads, Program


class Preloads(NamedTuple):
    """Every preloaded value of some chips, and the number of each in the whole program."""

    number: np.ndarray
    loads: Loads


def whole(loads: Loads) -> list[Preloads]:
    """All values as one piece."""
    return [Preloads(np.arange(len(loads)), loads)]


def by_chips(program: Program) -> Iterator[Preloads]:
    """The values of a program in pieces that have no chip in common."""
    counts = [len(program.blocks[call.block].loads) for call in program.calls]
    starts = np.cumsum([0, *counts])
    for calls in _together(program):
        number = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in calls])
        tables = [program.loads_of_call(program.calls[i]) for i in calls]
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in LOADS}
        yield Preloads(number, Loads(**columns))


def _together(program: Program) -> Sequence[list[int]]:
    """The calls that preload anything, in groups of which no two preload a chip in common."""
    ranks = [np.unique(block.loads.chip).tolist() for block in program.blocks]
    group: dict[int, list[int]] = {}  # of a chip: one list, shared by all chips of the group
    for index, call in enumerate(program.calls):
        chips = [call.chips[rank] for rank in ranks[call.block]]
        merged = {id(group[chip]): group[chip] for chip in chips if chip in group}
        if len(merged) == 1:
            joined = next(iter(merged.values()))
        else:
            joined = [i for calls in merged.values() for i in calls]
            group |= {chip: joined for chip, calls in group.items() if id(calls) in merged}
        joined.append(index)
        group |= dict.fromkeys(chips, joined)
    found = {id(calls): sorted(calls) for _, calls in sorted(group.items())}
    return list(found.values())
