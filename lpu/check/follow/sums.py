"""Rules 2 and 7 on sums: products in the accumulators of the planes, partial sums over chips.

MM adds into an accumulator and WB empties it. Where the input rows of a product are dealt over chips, WB
leaves wide partials, and RED adds every partial of its columns exactly once.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instructions.matmul import ReduceKernel, WriteBackKernel, products_of
from compiler.program.isa import PRODUCTS, Op
from compiler.program.ranges import ramp
from lpu.check.findings import Findings, tag
from lpu.check.rows import TIME_BITS, Alike, Batches
from lpu.check.stated import Stated

_BATCH_ROWS = 1 << 15


def accumulators(findings: Findings, stated: Stated) -> None:
    """Every MM belongs to the next WB of its accumulator; a WB closes as many MMs, and those, as it says."""
    c, planes, slots = findings.columns, stated.planes, stated.accumulators
    mm = np.flatnonzero(np.isin(c.op, PRODUCTS) & (c.unit >= 0) & (c.unit < planes))
    wb = np.flatnonzero((c.op == Op.WB) & (c.unit >= planes) & (c.unit < 2 * planes))
    row = np.concatenate([mm, wb])
    slot = np.concatenate([c.dst[mm], c.src3[wb]])
    real = (slot >= 0) & (slot < slots)
    out = np.flatnonzero(~real)
    findings.add(2, row[out], lambda i: f"accumulator {slot[out[i]]}, a plane has {slots}")
    if len(out):
        row, slot = row[real], slot[real]
    if not (c.op[row] == Op.WB).any():
        findings.add(2, row, "no WB reads its accumulator")
        return
    chip = c.chip[row]
    batches = Batches(np.bincount(chip, minlength=stated.chips), _BATCH_ROWS)
    for some in batches.of(chip):
        _closed(findings, stated, row[some], slot[some])


def _closed(
    findings: Findings, stated: Stated, row: Int[np.ndarray, " entries"], slot: Int[np.ndarray, " entries"]
) -> None:
    """All MM and WB of some chips, with the accumulator of each."""
    c, planes, slots = findings.columns, stated.planes, stated.accumulators
    ends = c.op[row] == Op.WB
    plane = (c.chip[row] * planes + c.unit[row] - np.where(ends, planes, 0)) * slots + slot
    key = (plane << TIME_BITS | np.where(ends, c.t0[row], c.t1[row])) << 1 | ends
    order = np.argsort(key)
    key, row = key[order], row[order]
    closes = (key & 1).astype(bool)
    wb, wb_key = row[closes], key[closes]
    mm, mm_key = row[~closes], key[~closes]
    owner = (np.cumsum(closes) - closes)[~closes]
    closed = owner < len(wb)
    closed[closed] = wb_key[owner[closed]] >> TIME_BITS + 1 == mm_key[closed] >> TIME_BITS + 1
    left = np.flatnonzero(~closed)
    findings.add(
        2, mm[left], lambda i: f"adds at cycle {c.t1[mm[left[i]]]}, no later WB reads its accumulator"
    )
    mm, mm_key, owner = mm[closed], mm_key[closed], owner[closed]
    count = np.bincount(owner, minlength=len(wb))
    wanted = products_of(stated.kernels)[c.aux[wb]]
    bad = np.flatnonzero(count != wanted)
    findings.add(
        2, wb[bad], lambda i: f"closes {count[bad[i]]} MMs by its cycle, its kernel says {wanted[bad[i]]}"
    )
    thin = np.flatnonzero(c.n[mm] != c.n[wb[owner]])
    findings.add(
        2,
        mm[thin],
        lambda i: (
            f"adds {c.n[mm[thin[i]]]} lines, {findings.place(wb[owner[thin[i]]])} "
            f"reads {c.n[wb[owner[thin[i]]]]}"
        ),
    )
    _as_it_is(findings, stated, wb)
    have, want = c.dst_tag[mm], c.src3_tag[wb[owner]]
    wrong = np.flatnonzero((have != want) & (have >= 0) & (want >= 0))
    pair, index = np.unique(np.concatenate([have[wrong], c.src3_tag[wb]]), return_inverse=True)
    place = np.concatenate([mm_key[wrong], wb_key]) >> TIME_BITS + 1
    place = place * len(pair) + index
    meant = np.isin(place[: len(wrong)], place[len(wrong) :])

    def text(at: int) -> str:
        reader = findings.place(wb[owner[at]])
        return (
            f"adds tag {tag(have[at])} at cycle {c.t1[mm[at]]} to what {reader} reads as tag {tag(want[at])}"
        )

    early, foreign = wrong[meant].tolist(), wrong[~meant].tolist()
    findings.add(2, mm[early], lambda i: text(early[i]))
    findings.add(7, mm[foreign], lambda i: text(foreign[i]))


def _as_it_is(findings: Findings, stated: Stated, wb: Int[np.ndarray, " drains"]) -> None:
    """A whole sum is written as the value that its accumulator holds."""
    c = findings.columns
    whole = [isinstance(k, WriteBackKernel) and not k.wide and not k.part for k in stated.kernels]
    named = wb[np.array(whole, bool)[c.aux[wb]]]
    have, want = c.dst_tag[named], c.src3_tag[named]
    other = np.flatnonzero((have != want) & (have >= 0) & (want >= 0))
    findings.add(
        7,
        named[other],
        lambda i: (
            f"writes as tag {tag(have[other[i]])} what its accumulator has as tag {tag(want[other[i]])}"
        ),
    )


class _Partials(NamedTuple):
    """Partials that may be added: the tag of each, the tag of its columns, the write-backs in it."""

    tag: Int[np.ndarray, " partials"]
    column: Int[np.ndarray, " partials"]
    drains: Int[np.ndarray, " partials"]


class _Added(NamedTuple):
    """Rows that add known partials: their columns, the write-backs in all of them, whether columns agree."""

    row: Int[np.ndarray, " adding"]
    column: Int[np.ndarray, " adding"]
    drains: Int[np.ndarray, " adding"]
    alike: Bool[np.ndarray, " adding"]


def sums(findings: Findings, groups: list[Alike]) -> None:
    """RED rows, also in two steps (within a tray, then across), against the write-backs of their columns.

    A write-back that leaves a wide partial says by the tag of its accumulator which columns it is of; the row
    that rounds them says it by the tag of its result.
    """
    c = findings.columns
    drains = [g.rows for g in groups if isinstance(g.kernel, WriteBackKernel) and g.kernel.wide]
    leaf = np.concatenate([np.zeros(0, np.int64), *drains])
    leaf = leaf[(c.src3_tag[leaf] >= 0) & (c.dst_tag[leaf] >= 0)]
    names, want = np.unique(c.src3_tag[leaf], return_counts=True)
    leaves = _Partials(c.dst_tag[leaf], c.src3_tag[leaf], np.ones(len(leaf), np.int64))
    inner = _added(findings, groups, leaves, wide=True)
    parts = inner.drains  # of an inner row: each of its partials is one write-back's
    findings.add(7, inner.row[~inner.alike], "adds partials of different columns")
    name = c.dst_tag[inner.row]
    once = np.unique(name, return_index=True)[1]
    once = once[np.argsort(c.src_tag[inner.row[once]], kind="stable")]
    ends = c.src_tag[inner.row[once]] + 4 * c.n[inner.row[once]] * parts[once]
    again = once[1:][c.src_tag[inner.row[once[1:]]] < ends[:-1]]
    findings.add(7, inner.row[again], "adds a partial that another row adds too")
    both = _Partials(
        np.concatenate([leaves.tag, name[once]]),
        np.concatenate([leaves.column, inner.column[once]]),
        np.concatenate([leaves.drains, inner.drains[once]]),
    )
    outer = _added(findings, groups, both, wide=False)
    at = np.minimum(np.searchsorted(names, outer.column), max(len(names) - 1, 0))
    whole = outer.alike & (outer.column == c.dst_tag[outer.row])
    if len(names):
        whole &= (names[at] == outer.column) & (want[at] == outer.drains)
    findings.add(7, outer.row[~whole], "does not add every partial of its columns once")


def _added(findings: Findings, groups: list[Alike], partials: _Partials, wide: bool) -> _Added:
    """The rows that leave wide partials, or those that round, and add some of these partials."""
    c = findings.columns
    adding = [
        (g.rows, g.kernel.parts)
        for g in groups
        if isinstance(g.kernel, ReduceKernel) and g.kernel.wide is wide
    ]
    none = np.zeros(0, np.int64)
    rows = np.concatenate([none, *(some for some, _ in adding)])
    parts = np.concatenate([none, *(np.full(len(some), count) for some, count in adding)])
    order = np.argsort(partials.tag, kind="stable")
    known = partials.tag[order]
    if not len(known) or not len(rows):
        return _Added(none, none, none, none.astype(bool))
    row, step = np.repeat(np.arange(len(rows)), parts), ramp(parts)
    sought = c.src_tag[rows][row] + 4 * c.n[rows][row] * step
    at = np.minimum(np.searchsorted(known, sought), len(known) - 1)
    found = known[at] == sought
    begin = np.cumsum(parts) - parts
    use = np.logical_and.reduceat(found, begin) & (c.dst_tag[rows] >= 0)  # rule 2 has found the others
    column, count = partials.column[order][at], partials.drains[order][at]
    first = column[begin]
    alike = np.logical_and.reduceat(column == first[row], begin)
    return _Added(rows[use], first[use], np.add.reduceat(count, begin)[use], alike[use])
