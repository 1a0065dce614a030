"""Rule 5: the SRAM that every row reads and writes, inside the regions of its chip."""

from typing import NamedTuple

import numpy as np

from compiler.program.isa import (
    KV,
    READS,
    SHARED,
    TRANSIENT,
    WEIGHTS,
    WRITES,
    Columns,
    Op,
    Operand,
    stripes,
    wide,
)
from compiler.program.program import ANGLES, GAIN, SCALE, TABLE, TILE
from lpu.check.findings import Findings
from lpu.check.machine import REGIONS, Group, Machine

_REGION = {TRANSIENT: 0, KV: 1, WEIGHTS: 2, SHARED: 2}
_PIECE = 1 << 15  # accesses looked at together
_KIND = {
    Op.EMBED: TABLE,
    Op.NORM: GAIN,
    Op.HNORM: GAIN,
    Op.ROPE: ANGLES,
    Op.MM: TILE,
    Op.WB: SCALE,
    Op.RED: SCALE,
}


class Accesses(NamedTuple):
    """Reads or writes of one space: [start, stop) in words, at a cycle, of values tagged `tag` and onwards.

    `kind` is the kind of preloaded value that a weight read needs.
    """

    row: np.ndarray
    chip: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    time: np.ndarray
    tag: np.ndarray
    kind: np.ndarray

    def take(self, which: np.ndarray) -> "Accesses":
        """The accesses named by an index or mask array."""
        return Accesses(*(column[which] for column in self))


class Operands(NamedTuple):
    """All accesses of the program that lie where they may."""

    reads: Accesses
    writes: Accesses
    weights: Accesses
    kv_reads: Accesses
    kv_writes: Accesses


def operands(findings: Findings, machine: Machine, groups: list[Group]) -> Operands:
    """Every access of every row; those outside their region or off their line are violations and left out."""
    wanted: dict[tuple[int, bool], list[tuple[Group, Operand]]] = {}
    for group in groups:
        if group.op in (Op.QK, Op.PV):
            _chunk(findings, group)
        if group.op is Op.KVW:
            _stripe(findings, group)
        for operand in READS[group.op]:
            space = WEIGHTS if operand.space == SHARED else operand.space
            wanted.setdefault((space, False), []).append((group, operand))
        write = WRITES[group.op]
        if write is not None:
            wanted.setdefault((write.space, True), []).append((group, write))

    def inside(space: int, write: bool) -> Accesses:
        c, some = findings.columns, wanted.get((space, write), [])
        most = sum(int(c.n[g.rows].sum()) if o.stride else len(g.rows) for g, o in some)
        joined = Accesses(
            *(np.empty(most, np.int8 if name == "kind" else np.int64) for name in Accesses._fields)
        )
        stop = 0
        for group, operand in some:  # into place: two copies would be most of the memory of the check
            part = _access(c, group, operand, machine.rows, write=write)
            start, stop = stop, stop + len(part.row)
            for column, values in zip(joined, part, strict=True):
                column[start:stop] = values
        return _inside(findings, machine, Accesses(*(column[:stop] for column in joined)), space)

    return Operands(
        reads=inside(TRANSIENT, False),
        writes=inside(TRANSIENT, True),
        weights=inside(WEIGHTS, False),
        kv_reads=inside(KV, False),
        kv_writes=inside(KV, True),
    )


def _chunk(findings: Findings, group: Group) -> None:
    """The chunk that a row names begins inside its KV region."""
    kernel, n = group.kernel, findings.columns.n[group.rows]
    bad = np.flatnonzero(n * kernel.chunk * kernel.kv_words >= kernel.kv_stride)
    findings.add(
        5,
        group.rows[bad],
        lambda i: (
            f"chunk {n[bad[i]]} begins at token {n[bad[i]] * kernel['chunk']}, its KV region has "
            f"{kernel['kv_stride'] // kernel['kv_words']}"
        ),
    )


def _stripe(findings: Findings, group: Group) -> None:
    """An append names one of the stripes that a head's tokens are dealt over."""
    stripe, count = findings.columns.src3[group.rows], stripes(group.kernel)
    bad = np.flatnonzero((stripe < -1) | (stripe >= count) | ((stripe < 0) & (count > 1)))
    findings.add(5, group.rows[bad], lambda i: f"appends to stripe {stripe[bad[i]]} of {count}")


def _access(c: Columns, group: Group, operand: Operand, batch: int, write: bool = False) -> Accesses:
    op, kernel, rows = group
    n = c.n[rows]
    start, tag = getattr(c, operand.column)[rows], getattr(c, operand.column + "_tag")[rows]
    unit = batch if operand.space == TRANSIENT else 1
    words = operand.extent(n, kernel) * unit
    if operand.stride:
        rows, words = np.repeat(rows, n), np.repeat(words, n)
        piece = np.arange(len(rows)) - np.repeat(np.cumsum(n) - n, n)
        step = piece * operand.stride(kernel)
        start = np.repeat(start, n) + step * unit
        tag = np.repeat(tag, n)
        tag = np.where(tag < 0, -1, tag + step)
    if op in (Op.WB, Op.RED) and operand.space == WEIGHTS and wide(kernel):
        rows = rows[:0]  # wide partials are not scaled yet: no operand
    count = len(rows)
    return Accesses(
        row=rows,
        chip=(c.peer if write and op in (Op.SEND, Op.FORWARD) else c.chip)[rows],
        start=start[:count],
        stop=start[:count] + words[:count],
        time=(c.t1 if write else c.t0)[rows],
        tag=tag[:count],
        kind=np.full(count, _KIND.get(op, -1)),
    )


def _inside(findings: Findings, machine: Machine, a: Accesses, space: int) -> Accesses:
    base, words = machine.regions[:, _REGION[space]].T
    low, high = np.maximum(base, 0), np.minimum(base + words, machine.words)
    off = np.empty(len(a.row), bool)
    for at in range(0, len(off), _PIECE):
        chip, start, stop = (column[at : at + _PIECE] for column in (a.chip, a.start, a.stop))
        off[at : at + _PIECE] = (start < low[chip]) | (start > high[chip] - (stop - start))
    name = REGIONS[_REGION[space]]
    bad = np.flatnonzero(off)
    findings.add(
        5,
        a.row[bad],
        lambda i: (
            f"operand words {a.start[bad[i]]} .. {a.stop[bad[i]] - 1}, "
            f"chip {a.chip[bad[i]]} has its {name} region in words {low[a.chip[bad[i]]]} .. "
            f"{high[a.chip[bad[i]]] - 1}"
        ),
    )
    if space == TRANSIENT and machine.rows > 1:
        skew = np.flatnonzero((a.start % machine.rows != 0) & ~off)
        findings.add(
            5,
            a.row[skew],
            lambda i: f"operand at word {a.start[skew[i]]}, lines begin at multiples of {machine.rows} words",
        )
        off[skew] = True
    return a.take(~off) if off.any() else a


def regions(findings: Findings, machine: Machine) -> None:
    """The regions of each chip are disjoint and inside its SRAM."""
    base, words = machine.regions[..., 0], machine.regions[..., 1]
    bad = (words < 0) | (base < 0) | (base + words > machine.words)
    end = base + words
    findings.note(
        5,
        np.argwhere(bad),
        lambda at: (
            f"chip {at[0]}: its {REGIONS[at[1]]} region is words {base[tuple(at)]} .. {end[tuple(at)] - 1}, "
            f"the chip has {machine.words}"
        ),
    )
    for one, other in ((0, 1), (0, 2), (1, 2)):
        first, last = np.maximum(base[:, one], base[:, other]), np.minimum(end[:, one], end[:, other])
        clash = (first < last) & (words[:, one] > 0) & (words[:, other] > 0)
        names = f"{REGIONS[one]} and {REGIONS[other]}"
        findings.note(
            5,
            np.flatnonzero(clash),
            lambda chip, n=names, f=first, e=last: (
                f"chip {chip}: {n} regions share words {f[chip]} .. {e[chip] - 1}"
            ),
        )
