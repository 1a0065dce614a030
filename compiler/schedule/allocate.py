"""Allocation: a transient SRAM address for every line of a block, on every rank that holds it.

The residual that blocks hand on lives in two fixed buffers at the bottom of SRAM, used in turn; everything
else is placed above them by first fit over lifetimes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from compiler.lower.layout import Lines
from compiler.program.isa import TAG_SHIFT, few
from compiler.schedule.list_schedule import Spans, Times

FOREVER = 1 << 62
PerRank = int | Int[np.ndarray, " ranks"]
"""A number of all ranks, or of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """First word of each line, flat at `offset[uid] + rank * lines[uid] + line`; words used by rank."""

    table: np.ndarray
    offset: np.ndarray
    lines: np.ndarray
    words: np.ndarray

    def of(self, rank: np.ndarray, tag: np.ndarray) -> np.ndarray:
        """Word addresses of tagged lines on ranks."""
        uid, line = tag >> TAG_SHIFT, tag & ((1 << TAG_SHIFT) - 1)
        return self.table[self.offset[uid] + rank * self.lines[uid] + line]

    def __str__(self) -> str:
        lines = [f"rank {rank}  {words} words" for rank, words in enumerate(self.words)]
        for uid, (first, count) in enumerate(zip(self.offset, self.lines, strict=True)):
            for rank in range(len(self.words)):
                at = self.table[first + rank * count : first + (rank + 1) * count]
                if (at >= 0).any():
                    places = ", ".join(f"t:{word:#x}" if word >= 0 else "-" for word in at)
                    lines.append(f"v{uid:<3} rank {rank}  lines at {places}")
        return few(lines)


def allocate(
    values: list[Lines],
    wrote: Spans,
    read: Spans,
    times: Times,
    *,
    ranks: int,
    batch: int,
    fixed: Mapping[int, PerRank],
    floor: PerRank,
    keep: tuple[int, ...],
) -> Addresses:
    """Place the lines of `values` on each of `ranks` ranks.

    fixed: first word of the values that blocks hand on, -1 on ranks where they lie anywhere; floor: first
    word above those buffers; keep: values that must outlive the block.
    """
    top = max(value.uid for value in values) + 1
    lines = np.zeros(top, np.int64)
    for value in values:
        lines[value.uid] = value.lines
    offset = np.cumsum(lines * ranks) - lines * ranks
    born = np.full((top, ranks), FOREVER, np.int64)
    dies = np.full((top, ranks), -1, np.int64)
    np.minimum.at(born, (wrote.tag >> TAG_SHIFT, wrote.rank), times.t0[wrote.row])
    np.maximum.at(dies, (wrote.tag >> TAG_SHIFT, wrote.rank), times.t1[wrote.row])
    np.maximum.at(dies, (read.tag >> TAG_SHIFT, read.rank), times.t0[read.row])
    dies[list(keep)] = FOREVER
    table = np.full(int((lines * ranks).sum()), -1, np.int64)
    floors = np.broadcast_to(np.asarray(floor, np.int64), ranks)
    words = floors.copy()
    held = {value.uid: value.held[:ranks] for value in values}
    known = {uid: np.broadcast_to(np.asarray(first, np.int64), ranks) for uid, first in fixed.items()}
    for uid, first in known.items():
        local = np.where(held[uid], first[:, None] + batch * np.arange(lines[uid]), -1)
        table[offset[uid] : offset[uid] + ranks * lines[uid]] = local.reshape(-1)
    size = {uid: mask.sum(axis=1) * batch for uid, mask in held.items()}
    for rank in range(ranks):
        free = [uid for uid in size if uid not in known or known[uid][rank] < 0]
        live = sorted((int(born[uid, rank]), uid) for uid in free if born[uid, rank] < FOREVER)
        floor = int(floors[rank])
        placed: list[tuple[int, int, int]] = []
        for begin, uid in live:
            need = int(size[uid][rank])
            at = floor
            for low, high, end in sorted(placed):
                if end < begin:
                    continue
                if at + need <= low:
                    break
                at = max(at, high)
            placed.append((at, at + need, int(dies[uid, rank])))
            words[rank] = max(words[rank], at + need)
            mask = held[uid][rank]
            local = at + batch * (np.cumsum(mask) - 1)
            row = int(offset[uid] + rank * lines[uid])
            table[row : row + lines[uid]] = np.where(mask, local, -1)
    return Addresses(table=table, offset=offset, lines=lines, words=words)
