"""Rule 7 on sums over chips: a reduction adds every partial of its columns exactly once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instructions.matmul import ReduceKernel, WriteBackKernel
from compiler.program.ranges import ramp
from lpu.check.findings import Findings
from lpu.check.rows import Alike


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
    leaf = leaf[(c.src_tag[leaf] >= 0) & (c.dst_tag[leaf] >= 0)]
    names, want = np.unique(c.src_tag[leaf], return_counts=True)
    leaves = _Partials(c.dst_tag[leaf], c.src_tag[leaf], np.ones(len(leaf), np.int64))
    inner = _added(findings, groups, leaves, wide=True)
    parts = inner.drains  # of an inner row: each of its partials is one write-back's
    findings.add(7, inner.row[~inner.alike], "adds partials of different columns")
    tag = c.dst_tag[inner.row]
    once = np.unique(tag, return_index=True)[1]
    once = once[np.argsort(c.src_tag[inner.row[once]], kind="stable")]
    ends = c.src_tag[inner.row[once]] + 4 * c.n[inner.row[once]] * parts[once]
    again = once[1:][c.src_tag[inner.row[once[1:]]] < ends[:-1]]
    findings.add(7, inner.row[again], "adds a partial that another row adds too")
    both = _Partials(
        np.concatenate([leaves.tag, tag[once]]),
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
