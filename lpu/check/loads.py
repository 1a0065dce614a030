"""The preloaded values as the checker looks at them: all of one chip at a time.

A chip's image is checked by itself, so those of a whole rack (millions of values) need never lie in memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from compiler.program.program import LOADS, Block, Loads, Program


class Preloads(NamedTuple):
    """Every preloaded value of some chips, and the number of each in the whole program."""

    number: np.ndarray
    loads: Loads


def whole(loads: Loads) -> list[Preloads]:
    """All values as one piece."""
    return [Preloads(np.arange(len(loads)), loads)]


def by_chip(program: Program) -> Iterator[Preloads]:
    """The values of a program as it places them, one chip after another."""
    blocks = [_by_rank(block) for block in program.blocks]
    counts = [len(block.loads) for block in program.blocks]
    held: dict[
        int, list[Preloads]
    ] = {}  # the numbers count from the call's first, the values lie nowhere yet
    of: dict[int, list[tuple[int, int]]] = {}  # per chip: call, first number
    start = 0
    for index, call in enumerate(program.calls):
        for rank, piece in blocks[call.block].items():
            held.setdefault(call.chips[rank], []).append(piece)
            of.setdefault(call.chips[rank], []).append((index, start))
        start += counts[call.block]
    for chip in sorted(held):
        numbers, tables = list[np.ndarray](), list[Loads]()
        for piece, (index, first) in zip(held[chip], of[chip], strict=True):
            numbers.append(piece.number + first)
            tables.append(program.placed(program.calls[index], piece.loads))
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in LOADS}
        yield Preloads(np.concatenate(numbers), Loads(**columns))


def _by_rank(block: Block) -> dict[int, Preloads]:
    """The values of a block by rank."""
    loads = block.loads
    order = np.argsort(loads.chip, kind="stable")
    starts = np.flatnonzero(np.diff(loads.chip[order], prepend=-1))
    some = np.split(order, starts[1:]) if len(order) else []
    return {
        int(loads.chip[rows[0]]): Preloads(
            rows, Loads(**{name: getattr(loads, name)[rows] for name in LOADS})
        )
        for rows in some
    }
