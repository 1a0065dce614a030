"""Activation ports: how many words rows move in a cycle, and the room that is left for another row.

Source: docs/timing.md, "Ports"; `lpu/check/units.py` counts them a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from compiler.errors import CapacityError
from compiler.lower.rows import Kernels, Rows
from compiler.program.instruction_set import name_of
from compiler.program.isa import Kernel, ceil_div, is_transfer
from compiler.program.packed import PackedKey, by_kind
from compiler.timing import moved_words

RATE = 1024  # ports are counted in 1/1024 words per cycle
_EVENT = PackedKey(rank=20, cycle=42, begins=1)  # what ends in a cycle ends before what begins in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Of every row: 1/1024 words per cycle and the rank that moves them; of transfers also where to.

    arrival: -1 for rows that are no transfer. limit: 1/1024 words per cycle that a rank can move.
    """

    rate: Int[np.ndarray, " rows"]
    rank: Int[np.ndarray, " rows"]
    arrival: Int[np.ndarray, " rows"]
    limit: int

    def most(self, t0: Int[np.ndarray, " rows"], t1: Int[np.ndarray, " rows"], hold: np.ndarray) -> int:
        """The most 1/1024 words that any rank moves in a cycle."""
        comes = np.flatnonzero(self.arrival >= 0)
        rank = np.concatenate([self.rank, self.arrival[comes]])
        begin = np.concatenate([t0, (t1 - hold)[comes]])
        end = np.concatenate([t0 + hold, t1[comes]])
        rate = np.concatenate([self.rate, self.rate[comes]])
        key = np.concatenate([_EVENT.pack(rank, begin, 1), _EVENT.pack(rank, end, 0)])
        load = np.concatenate([rate, -rate])[np.argsort(key, kind="stable")]
        return int(np.cumsum(load).max(initial=0))


def moves(rows: Rows, kernels: Kernels | Sequence[Kernel], hold: np.ndarray, batch: int, ports: int) -> Moves:
    """What the rows of a block move.

    Raises CapacityError if one row alone moves more words per cycle than a chip has ports.
    """
    words = rows.n * batch
    transfer = is_transfer(rows.op)
    for op, aux, which in by_kind(rows.op, rows.aux):
        if aux >= 0:
            words[which] = moved_words(op, rows.n[which], kernels[aux], batch)
    rate = ceil_div(RATE * words, np.maximum(hold, 1))
    if len(rate) and rate.max() > RATE * ports:
        row = int(rate.argmax())
        remedy = "Take fewer rows at once (--batch, --prefill-chunk) or a chip with more activation_ports."
        moved = f"moves {rate[row] / RATE:.1f} words a cycle, a chip has {ports} activation ports"
        raise CapacityError("schedule", f"row {row} ({name_of(int(rows.op[row]))})", moved, remedy)
    return Moves(rate=rate, rank=rows.rank, arrival=np.where(transfer, rows.peer, -1), limit=RATE * ports)


@dataclass(slots=True)
class PortLoad:
    """What is taken of the ports of every rank, while rows are placed in the order of time."""

    moves: Moves
    hold: list[int]
    latency: list[int]
    taken: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: {})

    def take(self, row: int, now: int) -> bool:
        """Takes the ports of a row that starts now; False, and nothing is taken, if they are not free."""
        hold, rate = self.hold[row], int(self.moves.rate[row])
        spans = [(int(self.moves.rank[row]), now, now + hold)]
        if self.moves.arrival[row] >= 0:
            end = now + self.latency[row]
            spans.append((int(self.moves.arrival[row]), end - hold, end))
        if not all(self._fits(rank, begin, end, rate, now) for rank, begin, end in spans):
            return False
        for rank, begin, end in spans:
            self.taken.setdefault(rank, []).append((begin, end, rate))
        return True

    def _fits(self, rank: int, begin: int, end: int, rate: int, now: int) -> bool:
        live = self.taken[rank] = [span for span in self.taken.get(rank, []) if span[1] > now]
        at = [begin] + [span[0] for span in live if begin < span[0] < end]
        return all(rate + sum(r for b, e, r in live if b <= cycle < e) <= self.moves.limit for cycle in at)
