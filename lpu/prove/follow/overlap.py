"""Calls that overlap in time on a chip: whatever both of them touch, the earlier call must be done with.

The proof takes the calls one after another, each as a whole. That is the order of time if every line and
every accumulator that two calls touch is last read and written by the first before the second touches it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from compiler.program.isa import PRODUCTS, Columns
from compiler.program.ranges import ramp
from lpu.prove.follow.block_rows import LINE_BITS, BlockRows
from lpu.prove.refused import need

_ACCUMULATOR = 1 << (LINE_BITS - 1)  # set in the key of one, with its plane and number below
_NEVER = 1 << 60


@dataclass(frozen=True, slots=True)
class Touched:
    """The places that the rows of a block touch, ascending: key = rank << 32 | line or accumulator.

    times: first and last cycle of reads, first and last of commits; the last is -1 where there are none.
    """

    key: Int[np.ndarray, " places"]
    times: Int[np.ndarray, "places 4"]


def touched(rows: BlockRows, c: Columns, planes: int) -> Touched:
    """All lines and accumulators of a block. Raises RefusedError for a line that no key holds."""
    begin, end = np.array(rows.ends[0], np.int64), np.array(rows.ends[2], np.int64)
    reader = np.repeat(np.arange(len(c)), end - begin)
    written = np.array(rows.written, np.int64)
    writer = np.repeat(np.arange(len(c)), written)
    unit = np.array(rows.unit, np.int64)
    (summing,) = np.nonzero(unit >= 0)
    accumulator = unit[summing] - ((c.chip[summing].astype(np.int64) * planes) << 20)
    held = c.chip[summing].astype(np.int64) << LINE_BITS | _ACCUMULATOR | accumulator
    adding = np.isin(c.op[summing], PRODUCTS)
    reads = np.concatenate([np.array(rows.reads, np.int64), held])
    writes = np.concatenate([np.array(rows.write, np.int64)[writer] + ramp(written), held[adding]])
    lines = np.concatenate([reads[: len(reader)], writes[: len(writer)]]) & ((1 << LINE_BITS) - 1)
    need(int(lines.max(initial=0)) < _ACCUMULATOR, "rows name lines beyond any SRAM")
    key = np.unique(np.concatenate([reads, writes]))
    times = np.tile(np.array([_NEVER, -1, _NEVER, -1]), (len(key), 1))
    for column, keys, cycle in (
        (0, reads, np.concatenate([c.t0[reader], c.t0[summing]])),
        (2, writes, np.concatenate([c.t1[writer], c.t1[summing[adding]]])),
    ):
        at = np.searchsorted(key, keys)
        np.minimum.at(times[:, column], at, cycle)
        np.maximum.at(times[:, column + 1], at, cycle)
    return Touched(key, times)


def out_of_order(first: Touched, second: Touched) -> Int[np.ndarray, " places"]:
    """Keys of places that `second` reads or writes before `first` is done with them."""
    keys, at, then = np.intersect1d(first.key, second.key, assume_unique=True, return_indices=True)
    _, read, _, commit = first.times[at].T
    reads, _, commits, _ = second.times[then].T
    return keys[(commit > reads) | (read >= commits) | (commit >= commits)]


def placed(block: Touched, chips: tuple[int, ...], base: int) -> Touched:
    """The same in a call: chips in the place of ranks, cycles of the step."""
    rank, rest = block.key >> LINE_BITS, block.key & ((1 << LINE_BITS) - 1)
    key = np.array(chips, np.int64)[rank] << LINE_BITS | rest
    order = np.argsort(key, kind="stable")
    times = np.where((block.times < 0) | (block.times == _NEVER), block.times, block.times + base)
    return Touched(key[order], times[order])
