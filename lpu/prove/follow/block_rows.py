"""The rows of a block as numbers that a walk in time can follow: lines read and written, events in order.

Lines are counted per rank: key = rank << 32 | line. Nothing here depends on the call, so a block is
prepared once per context.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS, name_of
from compiler.program.isa import (
    KV,
    OPERANDS,
    PRODUCTS,
    SHARED,
    SPACE_SHIFT,
    TRANSFER,
    TRANSIENT,
    WEIGHTS,
    Columns,
    Instruction,
    Kernel,
    Op,
    Operand,
    is_transfer,
)
from compiler.program.manifest import Manifest
from compiler.program.packed import by_kind
from compiler.program.program import Block
from compiler.program.ranges import ramp
from lpu.prove.follow.alike import numbered
from lpu.prove.follow.preloads import Reading, reading
from lpu.prove.refused import RefusedError, need

LINE_BITS = 32
_OFFSET = (1 << SPACE_SHIFT) - 1
_LATEST = 1 << 40
_MOST = 1 << 27  # lines that the rows of a block read or write
_SOURCES = ("src", "src2")


class RowKind(NamedTuple):
    """What rows have in common that a rule may see: opcode, kernel (-1 for transfers), count, `src3`.

    src3 is -1 where it is an address.
    """

    op: int
    kernel: int
    n: int
    src3: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRows:
    """A block's rows, each column a list by row.

    kind: index of `kinds`. reads: keys of all lines read; of row r those of operand i from ends[i][r] to
    ends[i + 1][r]. writes: key of the first line written and how many. run: see `Reading`. region: KV region
    (rank and space-coded word) that it reads or writes, or None. unit: rank, plane, accumulator of MM and WB.
    events: row << 1 | reads, in order of time, commits first. outside: keys read before the
    block writes them. spans: by rank the first and last cycle of reads and of commits, -1 for none.
    """

    kinds: list[RowKind]
    kind: list[int]
    op: list[int]
    reads: list[int]
    ends: tuple[list[int], list[int], list[int]]
    write: list[int]
    written: list[int]
    read: Reading
    region: list[tuple[int, int] | None]
    unit: list[int]
    events: list[int]
    outside: Int[np.ndarray, " keys"]
    spans: Int[np.ndarray, "ranks 4"]

    def __len__(self) -> int:
        return len(self.kind)


def block_rows(block: Block, context: int, manifest: Manifest) -> BlockRows:
    """The rows of a block for a context bucket. Raises RefusedError if they are not well formed."""
    need(context in block.columns, f"the block has no rows for context {context}")
    c = block.columns[context]
    size = len(c)
    _bounds(c)
    found = _operands(c, manifest)
    write, written, weight = found.write, found.written, found.weight
    holder = np.where(is_transfer(c.op), c.peer, c.chip)
    least, most = int(written.min(initial=0)), int(written.sum())
    need(least >= 0 and most < _MOST, "rows write more lines than there can be")
    needs_weights = np.flatnonzero(weight >= 0)
    keys, ends = _read_keys(c, found.first, found.count, found.step)
    kinds, kind = _kinds(c, found.number3, manifest.kernels)
    spans = _spans(c, holder, found.count, written)
    read = reading(
        block.loads,
        c.chip[needs_weights],
        weight[needs_weights],
        found.words[needs_weights],
        needs_weights,
        size,
    )
    return BlockRows(
        kinds=kinds,
        kind=kind,
        op=c.op.tolist(),
        reads=keys.tolist(),
        ends=ends,
        write=((holder << LINE_BITS) | np.maximum(write, 0)).tolist(),
        written=written.tolist(),
        read=read,
        region=[
            (rank, word) if word >= 0 else None
            for rank, word in zip(c.chip.tolist(), found.region.tolist(), strict=True)
        ],
        unit=_units(c, manifest.chip.planes).tolist(),
        events=_events(c).tolist(),
        outside=_outside(c, keys, ends, holder, write, written),
        spans=spans,
    )


@dataclass(frozen=True, slots=True)
class _Operands:
    """What every row names: lines, words and numbers, -1 or none where it names no such thing.

    first, count, step: of the lines of each of `_SOURCES`. write, written: first line written and how many.
    region: space-coded word of KV. weight, words: the first word of weights and how many. number3: its third
    operand where that is a number.
    """

    first: list[np.ndarray]
    count: list[np.ndarray]
    step: list[np.ndarray]
    write: np.ndarray
    written: np.ndarray
    region: np.ndarray
    weight: np.ndarray
    words: np.ndarray
    number3: np.ndarray


def _operands(c: Columns, manifest: Manifest) -> _Operands:
    """What the rows name, by kind of row. Raises RefusedError for an operand that its kind does not have."""
    size = len(c)
    none, nothing = (lambda: np.full(size, -1)), (lambda: np.zeros(size, np.int64))
    out = _Operands(
        first=[nothing() for _ in _SOURCES],
        count=[nothing() for _ in _SOURCES],
        step=[np.ones(size, np.int64) for _ in _SOURCES],
        write=none(),
        written=nothing(),
        region=none(),
        weight=none(),
        words=nothing(),
        number3=none(),
    )
    for op, aux, rows in by_kind(c.op, c.aux):
        record, kernel = _record(op, aux, manifest)
        n = c.n[rows]
        _row(c, (n < record.least) | (n > record.most), rows, "counts more or fewer lines than it can")
        named = {operand.column for operand in record.operands}
        if "src3" not in named and op != Op.WB:  # its accumulator is no number that a rule may see
            out.number3[rows] = c.src3[rows]
        for operand in record.reads:
            if not operand.is_in(kernel):
                continue
            address = getattr(c, operand.column)[rows]
            if operand.space == TRANSIENT:
                which = _SOURCES.index(operand.column)
                out.first[which][rows] = _lines(c, rows, address, manifest.rows)
                out.count[which][rows] = n if operand.stride is not None else operand.extent(n, kernel)
                out.step[which][rows] = 1 if operand.stride is None else operand.stride(kernel)
            elif operand.space == KV:
                out.region[rows] = _spaced(c, rows, address, KV)
            else:
                _row(c, address >> SPACE_SHIFT != _weights(operand, address), rows, "reads no weights there")
                out.weight[rows], out.words[rows] = address, operand.extent(n, kernel)
        target = record.write
        if target is not None and target.space == KV:
            out.region[rows] = _spaced(c, rows, c.dst[rows], KV)
        elif target is not None:
            out.write[rows] = _lines(c, rows, c.dst[rows], manifest.rows)
            out.written[rows] = target.extent(n, kernel)
    return out


def _bounds(c: Columns) -> None:
    """Ranks and cycles within what keys hold; extents are multiplied, so counts too."""
    every = np.arange(len(c))
    _row(
        c,
        (c.t0 < 0) | (c.t1 <= c.t0) | (c.t1 >= _LATEST),
        every,
        "commits no later than it reads, or too late",
    )
    transfer = is_transfer(c.op)
    far = (c.chip < 0) | (c.chip >= 1 << 20) | transfer & ((c.peer < 0) | (c.peer >= 1 << 20))
    _row(c, far, every, "names no rank of the block")
    _row(c, (c.n < 0) | (c.n > 1 << 21), every, "counts no lines that it could have")
    for name in OPERANDS:
        _row(c, getattr(c, name) >> (SPACE_SHIFT + 2) > 0, every, "names a space that does not exist")


def _record(op: int, aux: int, manifest: Manifest) -> tuple[Instruction, Kernel]:
    if op not in INSTRUCTIONS:
        raise RefusedError(f"no instruction has opcode {op}")
    record = INSTRUCTIONS[op]
    if op in (Op.SEND, Op.FORWARD):
        return record, TRANSFER
    need(0 <= aux < len(manifest.kernels), f"{name_of(op)}: kernel {aux} of {len(manifest.kernels)}")
    kernel = manifest.kernels[aux]
    need(
        type(kernel) in (record.kernel, *record.forms), f"{name_of(op)}: its kernel is one of {kernel.family}"
    )
    return record, kernel


def _row(c: Columns, bad: np.ndarray, rows: np.ndarray, otherwise: str) -> None:
    """Raise RefusedError for the first row that is bad."""
    found = np.flatnonzero(bad)
    if len(found):
        row = int(rows[found[0]])
        raise RefusedError(f"{name_of(int(c.op[row]))} {otherwise}", row=row)


def _weights(operand: Operand, address: np.ndarray) -> np.ndarray:
    space = address >> SPACE_SHIFT
    return np.where(space == SHARED, SHARED, WEIGHTS)


def _spaced(c: Columns, rows: np.ndarray, address: np.ndarray, space: int) -> np.ndarray:
    _row(c, (address < 0) | (address >> SPACE_SHIFT != space), rows, "has an operand in another space")
    return address


def _lines(c: Columns, rows: np.ndarray, address: np.ndarray, batch: int) -> np.ndarray:
    """The number of the line at transient words."""
    offset = _spaced(c, rows, address, TRANSIENT) & _OFFSET
    _row(
        c,
        (offset % batch != 0) | (offset // batch >= 1 << LINE_BITS - 1),
        rows,
        "has an operand where no line begins",
    )
    return offset // batch


def _read_keys(
    c: Columns, first: Sequence[np.ndarray], count: Sequence[np.ndarray], step: Sequence[np.ndarray]
) -> tuple[np.ndarray, tuple[list[int], list[int], list[int]]]:
    """Keys of the lines that rows read, row by row, `src` then `src2`."""
    total = count[0] + count[1]
    low, most = min(int(one.min(initial=0)) for one in count), max(int(one.max(initial=0)) for one in count)
    need(low >= 0 and most < _MOST and int(total.sum()) < _MOST, "rows read more lines than there can be")
    begin = np.cumsum(total) - total
    keys = np.zeros(int(total.sum()), np.int64)
    for which, at in ((0, begin), (1, begin + count[0])):
        row = np.repeat(np.arange(len(c)), count[which])
        within = ramp(count[which])
        line = first[which][row] + within * step[which][row]
        keys[at[row] + within] = c.chip[row] << LINE_BITS | line
    return keys, (begin.tolist(), (begin + count[0]).tolist(), (begin + total).tolist())


def _kinds(c: Columns, number3: np.ndarray, kernels: tuple[Kernel, ...]) -> tuple[list[RowKind], list[int]]:
    first = np.array([*map(kernels.index, kernels), 0])  # equal kernels are one
    aux = np.where(is_transfer(c.op), -1, first[np.clip(c.aux, -1, len(kernels))])
    number, example = numbered(c.op, aux, c.n, number3)
    table = np.stack([c.op, aux, c.n, number3], axis=-1)
    return [RowKind(*row) for row in table[example].tolist()], number.tolist()


def _units(c: Columns, planes: int) -> np.ndarray:
    """Rank, plane and accumulator of MM and WB rows."""
    mm, wb = np.isin(c.op, PRODUCTS), c.op == Op.WB
    plane = np.where(wb, c.unit - planes, c.unit)
    slot = np.where(wb, c.src3, c.dst)
    bad = (mm | wb) & ((plane < 0) | (plane >= planes) | (slot < 0) | (slot >= 1 << 20))
    _row(c, bad, np.arange(len(c)), "names a plane or an accumulator that does not exist")
    return np.where(mm | wb, (c.chip * planes + plane) << 20 | slot, -1)


def _events(c: Columns) -> np.ndarray:
    """Reads and commits in order of time; at one cycle commits come first, rows in their order."""
    row = np.arange(len(c))
    time = np.concatenate([c.t1 << 1, c.t0 << 1 | 1])
    event = np.concatenate([row << 1, row << 1 | 1])
    return event[np.argsort(time, kind="stable")]


def _outside(
    c: Columns,
    keys: np.ndarray,
    ends: tuple[list[int], list[int], list[int]],
    holder: np.ndarray,
    write: np.ndarray,
    written: np.ndarray,
) -> np.ndarray:
    """Lines that are read before the block has written them."""
    size = np.array(ends[2], np.int64) - np.array(ends[0], np.int64)
    asked = np.repeat(c.t0, size)
    row = np.repeat(np.arange(len(c)), written)
    made = holder[row] << LINE_BITS | (write[row] + ramp(written))
    every, index = np.unique(np.concatenate([keys, made]), return_inverse=True)
    index = index.reshape(-1)
    read, commit = np.full(len(every), _LATEST), np.full(len(every), _LATEST)
    np.minimum.at(read, index[: len(keys)], asked)
    np.minimum.at(commit, index[len(keys) :], c.t1[row])
    return every[read < commit]


def _spans(c: Columns, holder: np.ndarray, count: Sequence[np.ndarray], written: np.ndarray) -> np.ndarray:
    """By rank: first and last cycle of reads, first and last of commits; -1 where there are none."""
    ranks = int(max(c.chip.max(initial=-1), holder.max(initial=-1))) + 1
    out = np.full((ranks, 4), -1)
    for at, rank, time in ((0, c.chip, c.t0), (2, holder, c.t1)):
        low, high = np.full(ranks, _LATEST), np.full(ranks, -1)
        np.minimum.at(low, rank, time)
        np.maximum.at(high, rank, time)
        out[:, at], out[:, at + 1] = np.where(high < 0, -1, low), high
    return out
