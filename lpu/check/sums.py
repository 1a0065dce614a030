"""Rule 7 on sums over chips: a reduction adds every partial of its columns exactly once."""

import numpy as np

from compiler.program.isa import Op, wide
from lpu.check.findings import Findings
from lpu.check.machine import Group


def sums(findings: Findings, groups: list[Group]) -> None:
    """RED rows, also in two steps (within a tray, then across), against the write-backs of their columns.

    A write-back that leaves a wide partial says by the tag of its accumulator which columns it is of; the row
    that rounds them says it by the tag of its result.
    """
    c = findings.columns
    drains = [g.rows for g in groups if g.op is Op.WB and wide(g.kernel)]
    leaf = np.concatenate([np.zeros(0, np.int64), *drains])
    leaf = leaf[(c.src_tag[leaf] >= 0) & (c.dst_tag[leaf] >= 0)]
    names, want = np.unique(c.src_tag[leaf], return_counts=True)
    place = {"tag": c.dst_tag[leaf], "column": c.src_tag[leaf], "count": np.ones(len(leaf), np.int64)}
    first, last = (
        _added([g for g in groups if g.op is Op.RED and wide(g.kernel) is w]) for w in (True, False)
    )
    inner, column, count, alike = _leaves(findings, first, place)
    parts = count  # of an inner row: each of its partials is one write-back's
    findings.add(7, inner[~alike], lambda i: "adds partials of different columns")
    tag = c.dst_tag[inner]
    once = np.unique(tag, return_index=True)[1]
    once = once[np.argsort(c.src_tag[inner[once]], kind="stable")]
    ends = c.src_tag[inner[once]] + 4 * c.n[inner[once]] * parts[once]
    again = once[1:][c.src_tag[inner[once[1:]]] < ends[:-1]]
    findings.add(7, inner[again], lambda i: "adds a partial that another row adds too")
    place = {
        "tag": np.concatenate([place["tag"], tag[once]]),
        "column": np.concatenate([place["column"], column[once]]),
        "count": np.concatenate([place["count"], count[once]]),
    }
    outer, column, count, alike = _leaves(findings, last, place)
    at = np.minimum(np.searchsorted(names, column), max(len(names) - 1, 0))
    whole = alike & (column == c.dst_tag[outer])
    if len(names):
        whole &= (names[at] == column) & (want[at] == count)
    bad = np.flatnonzero(~whole)
    findings.add(7, outer[bad], lambda i: "does not add every partial of its columns once")


def _added(groups: list[Group]) -> tuple[np.ndarray, np.ndarray]:
    """(rows, partials that each adds)."""
    rows = [np.zeros(0, np.int64), *(g.rows for g in groups)]
    return np.concatenate(rows), np.repeat([0, *(g.kernel.parts for g in groups)], [len(r) for r in rows])


def _leaves(
    findings: Findings, added: tuple[np.ndarray, np.ndarray], place: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows that add known partials: (row, its columns, partials in it, whether all are of them)."""
    c = findings.columns
    rows, parts = added
    order = np.argsort(place["tag"], kind="stable")
    known = place["tag"][order]
    row = np.repeat(np.arange(len(rows)), parts)
    step = np.arange(len(row)) - np.repeat(np.cumsum(parts) - parts, parts)
    sought = c.src_tag[rows][row] + 4 * c.n[rows][row] * step
    if not len(known) or not len(rows):
        none = np.zeros(0, np.int64)
        return none, none, none, none.astype(bool)
    at = np.minimum(np.searchsorted(known, sought), len(known) - 1)
    found = known[at] == sought
    begin = np.cumsum(parts) - parts
    use = np.logical_and.reduceat(found, begin) & (c.dst_tag[rows] >= 0)  # rule 2 has found the others
    column, count = place["column"][order][at], place["count"][order][at]
    first = column[begin]
    alike = np.logical_and.reduceat(column == first[row], begin)
    return rows[use], first[use], np.add.reduceat(count, begin)[use], alike[use]
