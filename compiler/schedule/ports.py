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
from compiler.program.isa import Columns, Kernel, ceil_div, is_transfer
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
        return int(self._loads(t0, t1, hold)[1].max(initial=0))

    def peaks(
        self, t0: Int[np.ndarray, " rows"], t1: Int[np.ndarray, " rows"], hold: np.ndarray, ranks: int
    ) -> Int[np.ndarray, " ranks"]:
        """The most 1/1024 words that each rank moves in a cycle."""
        out = np.zeros(ranks, np.int64)
        np.maximum.at(out, *self._loads(t0, t1, hold))
        return out

    def _loads(
        self, t0: Int[np.ndarray, " rows"], t1: Int[np.ndarray, " rows"], hold: np.ndarray
    ) -> tuple[Int[np.ndarray, " events"], Int[np.ndarray, " events"]]:
        """(rank, 1/1024 words that it moves from there on) at each begin and end of a row."""
        comes = np.flatnonzero(self.arrival >= 0)
        rank = np.concatenate([self.rank, self.arrival[comes]])
        begin = np.concatenate([t0, (t1 - hold)[comes]])
        end = np.concatenate([t0 + hold, t1[comes]])
        rate = np.concatenate([self.rate, self.rate[comes]])
        key = np.concatenate([_EVENT.pack(rank, begin, 1), _EVENT.pack(rank, end, 0)])
        order = np.argsort(key, kind="stable")
        return np.concatenate([rank, rank])[order], np.cumsum(np.concatenate([rate, -rate])[order])


def moves(rows: Rows, kernels: Kernels | Sequence[Kernel], hold: np.ndarray, batch: int, ports: int) -> Moves:
    """What the rows of a block move.

    Raises CapacityError if one row alone moves more words per cycle than a chip has ports.
    """
    transfer = is_transfer(rows.op)
    rate = word_rates(rows, kernels, hold, batch)
    if len(rate) and rate.max() > RATE * ports:
        row = int(rate.argmax())
        remedy = "Take fewer rows at once (--batch, --prefill-chunk) or a chip with more activation_ports."
        moved = f"moves {rate[row] / RATE:.1f} words a cycle, a chip has {ports} activation ports"
        raise CapacityError("schedule", f"row {row} ({name_of(int(rows.op[row]))})", moved, remedy)
    return Moves(rate=rate, rank=rows.rank, arrival=np.where(transfer, rows.peer, -1), limit=RATE * ports)


def word_rates(
    rows: Rows | Columns, kernels: Kernels | Sequence[Kernel], hold: np.ndarray, batch: int
) -> Int[np.ndarray, " rows"]:
    """1/1024 words per cycle that each row moves while it holds its unit."""
    words = rows.n * batch
    compute = np.flatnonzero(~is_transfer(rows.op))
    for op, aux, some in by_kind(rows.op[compute], rows.aux[compute]):
        which = compute[some]
        words[which] = moved_words(op, rows.n[which], kernels[aux], batch)
    return ceil_div(RATE * words, np.maximum(hold, 1))


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
