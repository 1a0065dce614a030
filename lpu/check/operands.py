"""Rule 5: the SRAM that every row reads and writes, inside the regions of its chip."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import KV, SHARED, TRANSIENT, WEIGHTS, Columns, Op, Operand
from compiler.program.ranges import ramp
from lpu.check.findings import Findings
from lpu.check.rows import Alike
from lpu.check.stated import Stated

REGIONS = ("transient", "kv", "weights")  # the order in the manifest
_STATES = SHARED + 1  # beside the spaces: states, which lie in the KV space
_REGION = {TRANSIENT: 0, KV: 1, WEIGHTS: 2, _STATES: 1}
_PIECE = 1 << 15  # accesses looked at together
Entries = Int[np.ndarray, " accesses"]


class Accesses(NamedTuple):
    """Reads or writes of one space: [start, stop) in words, at a cycle, of values tagged `tag` and onwards.

    `kind` is the kind of preloaded value that a weight read needs.
    """

    row: Entries
    chip: Entries
    start: Entries
    stop: Entries
    time: Entries
    tag: Entries
    kind: Entries

    def take(self, which: Int[np.ndarray, " some"] | Bool[np.ndarray, " accesses"]) -> "Accesses":
        """The accesses named by an index or mask array."""
        return Accesses(*(column[which] for column in self))


class Operands(NamedTuple):
    """All accesses of the program that lie where they may; renewed: of states, at the cycle of the reads.

    loaded: words of weights that rows write.
    """

    reads: Accesses
    writes: Accesses
    weights: Accesses
    kv_reads: Accesses
    kv_writes: Accesses
    renewed: Accesses
    loaded: Accesses


def operands(findings: Findings, stated: Stated, groups: list[Alike]) -> Operands:
    """Every access of every row; those outside their region or off their line are violations and left out."""
    wanted: dict[tuple[int, bool], list[tuple[Alike, Operand]]] = {}
    for group in groups:
        if group.op in (Op.QK, Op.PV):
            _chunk(findings, group)
        if group.op in (Op.FETCH, Op.QKF, Op.PVF):
            _early(findings, group)
        if group.op == Op.KVW:
            _stripe(findings, group)
        for operand in group.operands:
            space = WEIGHTS if operand.space == SHARED else operand.space
            write = operand.column == "dst"
            key = (_STATES if operand.column == group.instruction.renews else space, write)
            wanted.setdefault(key, []).append((group, operand))

    def inside(space: int, write: bool) -> Accesses:
        c, some = findings.columns, wanted.get((space, write), [])
        most = sum(int(c.n[g.rows].sum()) if o.stride else len(g.rows) for g, o in some)
        joined = Accesses(
            *(np.empty(most, np.int8 if name == "kind" else np.int64) for name in Accesses._fields)
        )
        stop = 0
        for group, operand in some:  # into place: two copies would be most of the memory of the check
            part = _access(c, group, operand, stated.rows, write=write)
            start, stop = stop, stop + len(part.row)
            for column, values in zip(joined, part, strict=True):
                column[start:stop] = values
        return _inside(findings, stated, Accesses(*(column[:stop] for column in joined)), space)

    return Operands(
        reads=inside(TRANSIENT, False),
        writes=inside(TRANSIENT, True),
        weights=inside(WEIGHTS, False),
        kv_reads=inside(KV, False),
        kv_writes=inside(KV, True),
        renewed=inside(_STATES, False),
        loaded=inside(WEIGHTS, True),
    )


def _chunk(findings: Findings, group: Alike) -> None:
    """The chunk that a row names begins inside its KV region."""
    kernel, n = group.kernel, findings.columns.n[group.rows]
    assert isinstance(kernel, AttentionKernel)
    token, tokens = n * kernel.chunk, kernel.kv_stride // kernel.kv_words
    bad = np.flatnonzero(token * kernel.kv_words >= kernel.kv_stride)
    findings.add(
        5,
        group.rows[bad],
        lambda i: f"chunk {n[bad[i]]} begins at token {token[bad[i]]}, its KV region has {tokens}",
    )


def _early(findings: Findings, group: Alike) -> None:
    """The block that a row fetches, or has of DDR5, is one of those that DDR5 keeps of a region."""
    kernel, n = group.kernel, findings.columns.n[group.rows]
    assert isinstance(kernel, AttentionKernel)
    most = kernel.early // kernel.stripes
    bad = np.flatnonzero((n >= most) | ((n + 1) * kernel.chunk > kernel.reservoir))
    findings.add(
        5,
        group.rows[bad],
        lambda i: (
            f"fetched block {n[bad[i]]}: DDR5 has {most} of this context, room for {kernel.reservoir} tokens"
        ),
    )


def _stripe(findings: Findings, group: Alike) -> None:
    """An append names one of the stripes that a head's tokens are dealt over."""
    assert isinstance(group.kernel, AttentionKernel)
    stripe, count = findings.columns.src3[group.rows], group.kernel.stripes
    bad = np.flatnonzero((stripe < -1) | (stripe >= count) | ((stripe < 0) & (count > 1)))
    findings.add(5, group.rows[bad], lambda i: f"appends to stripe {stripe[bad[i]]} of {count}")


def _access(c: Columns, group: Alike, operand: Operand, batch: int, write: bool = False) -> Accesses:
    _, kernel, rows = group
    n = c.n[rows]
    start, tag = getattr(c, operand.column)[rows], getattr(c, operand.column + "_tag")[rows]
    unit = batch if operand.space == TRANSIENT else 1
    words = operand.extent(n, kernel) * unit
    if operand.stride:
        rows, words = np.repeat(rows, n), np.repeat(words, n)
        step = ramp(n) * operand.stride(kernel)
        start = np.repeat(start, n) + step * unit
        tag = np.repeat(tag, n)
        tag = np.where(tag < 0, -1, tag + step)
    return Accesses(
        row=rows,
        chip=(c.peer if write and group.transfers else c.chip)[rows],
        start=start,
        stop=start + words,
        time=(c.t1 if write else c.t0)[rows],
        tag=tag,
        kind=np.full(len(rows), operand.kind(kernel)),
    )


def _inside(findings: Findings, stated: Stated, a: Accesses, space: int) -> Accesses:
    base, words = stated.regions[:, _REGION[space]].T
    low, high = np.maximum(base, 0), np.minimum(base + words, stated.words)
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
    if space == TRANSIENT and stated.rows > 1:
        skew = np.flatnonzero((a.start % stated.rows != 0) & ~off)
        findings.add(
            5,
            a.row[skew],
            lambda i: f"operand at word {a.start[skew[i]]}, lines begin at multiples of {stated.rows} words",
        )
        off[skew] = True
    return a.take(~off) if off.any() else a


def regions(findings: Findings, stated: Stated) -> None:
    """The regions of each chip are disjoint and inside its SRAM."""
    base, words = stated.regions[..., 0], stated.regions[..., 1]
    bad = (words < 0) | (base < 0) | (base + words > stated.words)
    end = base + words
    findings.note(
        5,
        np.argwhere(bad),
        lambda at: (
            f"chip {at[0]}: its {REGIONS[at[1]]} region is words {base[tuple(at)]} .. {end[tuple(at)] - 1}, "
            f"the chip has {stated.words}"
        ),
    )
    for one, other in ((0, 1), (0, 2), (1, 2)):
        _disjoint(findings, stated, one, other)


def _disjoint(findings: Findings, stated: Stated, one: int, other: int) -> None:
    base, words = stated.regions[:, [one, other], 0], stated.regions[:, [one, other], 1]
    first, last = base.max(axis=1), (base + words).min(axis=1)
    findings.note(
        5,
        np.flatnonzero((first < last) & (words > 0).all(axis=1)),
        lambda chip: (
            f"chip {chip}: {REGIONS[one]} and {REGIONS[other]} regions share words "
            f"{first[chip]} .. {last[chip] - 1}"
        ),
    )
