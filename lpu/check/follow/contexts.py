"""Rule 7 on attention: every block of a context once, each with its own weights, in the contract's tree.

Sums inside a block are exact, but blocks are rounded, so the order in which their nodes are merged decides
bits: nodes are followed from the blocks on, as ranges of blocks.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instructions.attention import (
    AttentionKernel,
    block_number,
    dealt_number,
    is_ring,
    node_lines,
    ring_blocks,
)
from compiler.program.isa import Columns, Op
from compiler.program.ranges import ramp
from lpu.check.findings import Findings
from lpu.check.rows import Alike

Rows = Int[np.ndarray, " rows"]
Parts = Int[np.ndarray, " parts"]
_SCORED: dict[int, int] = {
    Op.PV: Op.QK,
    Op.PVF: Op.QKF,
}  # what makes the scores of a block whose values a row takes


class MadeRows(NamedTuple):
    """Compute rows by the tag of their first result: sorted tags, a row of each."""

    tag: Int[np.ndarray, " made"]
    row: Int[np.ndarray, " made"]

    def find(self, wanted: Int[np.ndarray, "*wanted"]) -> Int[np.ndarray, "*wanted"]:
        """The row that makes each tag first of its result; -1 for none."""
        if not len(self.tag):
            return np.full(np.shape(wanted), -1)
        at = np.minimum(np.searchsorted(self.tag, wanted), len(self.tag) - 1)
        return np.where((self.tag[at] == wanted) & (wanted >= 0), self.row[at], -1)


class _Nodes(NamedTuple):
    """By row, of those that make a node: its first block and the one behind it, tags of queries, K and V.

    first is -1 for a row that makes no node that is known, or one of the wrong operands.
    """

    first: Rows
    stop: Rows
    names: Int[np.ndarray, "3 rows"]


def contexts(findings: Findings, groups: list[Alike], made: MadeRows) -> None:
    """Weights of a block meet its own values; nodes merge as the tree says, and divide when whole."""
    every = [(g.op, g.rows, g.kernel) for g in groups if isinstance(g.kernel, AttentionKernel)]
    if not every:
        return
    of = _appended(findings.columns)
    size = len(findings.columns)
    nodes = _Nodes(np.full(size, -1), np.full(size, -1), np.full((3, size), -1))
    for op, rows, kernel in every:
        if op in _SCORED:
            _weigh(findings, made, (op, rows), kernel, of, nodes)
    for op, rows, kernel in every:
        if op == Op.NODE:
            _merge(findings, made, rows, kernel, nodes)
    for op, rows, kernel in every:
        if op == Op.AOUT:
            _divide(findings, made, rows, kernel, nodes)


def rings(findings: Findings, groups: list[Alike], context: int, appended: int) -> None:
    """Attention that reads fewer tokens than the context has: of rings that hold all that it sees.

    appended: the most tokens of a sequence that a step of any program with this KV takes.
    """
    for group in groups:
        k = group.kernel
        if not isinstance(k, AttentionKernel) or not is_ring(k, context):
            continue
        read, least = k.chunk * k.chunks, ring_blocks(k.reach, k.block, appended) * k.block
        if group.op == Op.NODE:
            findings.add(7, group.rows, "merges blocks of a ring, whose order is data")
        elif group.op == Op.KVW and not k.reach:
            findings.add(7, group.rows, f"its kernel reads {read} tokens of a context of {context}")
        elif group.op == Op.KVW and (read != k.capacity or read < least or k.chunk != k.block):
            findings.add(
                7,
                group.rows,
                f"a ring of {k.capacity} tokens, {read} read; to see {k.reach} it takes {least}",
            )


def _appended(c: Columns) -> dict[int, tuple[int, int, int]]:
    """Stripe, and tags of K and V, of every region by its tag: what rows append to it."""
    rows = np.flatnonzero((c.op == Op.KVW) & (c.dst_tag >= 0))
    found = zip(
        c.dst_tag[rows].tolist(),
        np.maximum(c.src3[rows], 0).tolist(),
        c.src_tag[rows].tolist(),
        c.src2_tag[rows].tolist(),
        strict=True,
    )
    return {region: (stripe, k, v) for region, stripe, k, v in found}


def _weigh(
    findings: Findings,
    made: MadeRows,
    some: tuple[int, Rows],
    k: AttentionKernel,
    of: dict[int, tuple[int, int, int]],
    nodes: _Nodes,
) -> None:
    """PV: the weights of the block and head that it reads V of, against the maximum of their own scores.

    PVF reads them of a copy, which is of the block that it says.
    """
    c, (op, rows) = findings.columns, some
    rows = rows[(c.src_tag[rows] >= 0) & (c.src2_tag[rows] >= 0)]
    weights = made.find(c.src_tag[rows])
    scores = np.where(weights >= 0, made.find(c.src_tag[weights]), -1)
    peaks = np.where(weights >= 0, made.find(c.src2_tag[weights]), -1)
    known = (scores >= 0) & (peaks >= 0)
    rows, weights, scores, peaks = rows[known], weights[known], scores[known], peaks[known]
    good = (c.op[weights] == Op.EXP) & (c.op[scores] == _SCORED[op]) & (c.op[peaks] == Op.SMAX)
    good &= (c.src2_tag[rows] == c.src2_tag[scores]) & (c.n[rows] == c.n[scores])
    good &= c.src_tag[peaks] == c.src_tag[weights]
    findings.add(7, rows[~good], "does not weigh the values of a block with the weights of its own scores")
    rows, scores = rows[good], scores[good]
    source = rows if op == Op.PV else _fetched(findings, made, rows)
    rows, scores, source = rows[source >= 0], scores[source >= 0], source[source >= 0]
    regions, which = np.unique(c.src2_tag[source], return_inverse=True)
    held = np.array([of.get(region, (-1, -1, -1)) for region in regions.tolist()]).reshape(-1, 3)[which]
    numbered, end = (block_number, k.chunks) if op == Op.PV else (dealt_number, k.early)
    block = numbered(k, held[:, 0], c.n[rows])
    beyond = np.flatnonzero((held[:, 0] >= 0) & (block >= end))
    findings.add(7, rows[beyond], lambda i: f"is about block {block[beyond[i]]}, there are {end}")
    fine = (held[:, 0] >= 0) & (block < end)
    rows, scores, held, block = rows[fine], scores[fine], held[fine], block[fine]
    nodes.first[rows], nodes.stop[rows] = block, block + 1
    nodes.names[:, rows] = c.src_tag[scores], held[:, 1], held[:, 2]


def _fetched(findings: Findings, made: MadeRows, rows: Rows) -> Rows:
    """The row that fetched what each of these reads, of the block that it says; -1 for none."""
    c = findings.columns
    source = made.find(c.src2_tag[rows])
    fine = (source >= 0) & (c.op[source] == Op.FETCH) & (c.n[source] == c.n[rows]) & (c.src2_tag[source] >= 0)
    bad = np.flatnonzero(~fine)
    findings.add(7, rows[bad], lambda i: f"is about fetched block {c.n[rows[bad[i]]]}, reads no copy of it")
    return np.where(fine, source, -1)


def _operands(
    c: Columns, made: MadeRows, rows: Rows, k: AttentionKernel, nodes: _Nodes
) -> tuple[Int[np.ndarray, " whole"], Parts, Parts]:
    """(rows whose nodes are all known, which of them each node belongs to, the row that made it)."""
    rows = rows[c.src_tag[rows] >= 0]
    of, piece = np.repeat(np.arange(len(rows)), c.n[rows]), ramp(c.n[rows])
    parts = made.find(c.src_tag[rows[of]] + piece * node_lines(k))
    known = _every(len(rows), of, (parts >= 0) & (nodes.first[parts] >= 0))
    keep = known[of]
    return rows[known], (np.cumsum(known) - 1)[of[keep]], parts[keep]


def _every(count: int, of: Parts, good: Bool[np.ndarray, " parts"]) -> Bool[np.ndarray, " rows"]:
    """Of which rows all pieces are good."""
    return np.bincount(of[~good], minlength=count) == 0


def _joined(
    c: Columns, rows: Rows, of: Parts, parts: Parts, k: AttentionKernel, nodes: _Nodes
) -> tuple[Bool[np.ndarray, " rows"], Rows, Rows]:
    """(whether the nodes of each row are neighbours that make up a node of the tree, its first, its stop)."""
    first, stop = nodes.first[parts], nodes.stop[parts]
    begin = np.flatnonzero(np.diff(of, prepend=-1))
    count = np.diff(np.append(begin, len(of)))
    end = begin + count - 1
    size, ends = (stop - first)[begin], stop[end] == k.chunks
    inner = np.ones(len(of), bool)  # whether a node has one of the same row behind it
    inner[end] = False
    fine = np.ones(len(of), bool)
    fine[1:] = (of[1:] != of[:-1]) | (first[1:] == stop[:-1])
    for name in nodes.names:
        fine[1:] &= (of[1:] != of[:-1]) | (name[parts[1:]] == name[parts[:-1]])
    fine &= ~inner | (stop - first == size[of])
    rest = (stop - first)[end]
    whole = size << np.ceil(np.log2(np.maximum(count, 1))).astype(np.int64)
    good = _every(len(rows), of, fine) & ((rest == size) | (rest < size) & ends)
    good &= (size & (size - 1) == 0) & (first[begin] % whole == 0)
    good &= (count & (count - 1) == 0) | ends
    return good | (count == 1), first[begin], stop[end]


def _merge(findings: Findings, made: MadeRows, rows: Rows, k: AttentionKernel, nodes: _Nodes) -> None:
    """NODE, as often as it takes until what each makes is known."""
    c = findings.columns
    wanted = rows
    while len(wanted):
        ready, of, parts = _operands(c, made, wanted, k, nodes)
        if not len(ready):
            return  # rule 2 or the other tags have found the rest
        good, first, stop = _joined(c, ready, of, parts, k, nodes)
        findings.add(7, ready[~good], "merges nodes that are no neighbours in the tree of blocks")
        begin = np.flatnonzero(np.diff(of, prepend=-1))
        nodes.first[ready[good]], nodes.stop[ready[good]] = first[good], stop[good]
        nodes.names[:, ready[good]] = nodes.names[:, parts[begin[good]]]
        wanted = wanted[~np.isin(wanted, ready)]


def _divide(findings: Findings, made: MadeRows, rows: Rows, k: AttentionKernel, nodes: _Nodes) -> None:
    """AOUT: nodes that make up the whole context."""
    c = findings.columns
    ready, of, parts = _operands(c, made, rows, k, nodes)
    if not len(ready):
        return
    good, first, stop = _joined(c, ready, of, parts, k, nodes)
    whole = good & (first == 0) & (stop == k.chunks)
    bad = np.flatnonzero(~whole)
    findings.add(
        7,
        ready[bad],
        lambda i: f"divides blocks {first[bad[i]]} .. {stop[bad[i]] - 1}, not all {k.chunks} once",
    )
