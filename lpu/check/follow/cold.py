"""Experts in DDR5: a product takes the tile that was fetched for its slot, and DDR5 holds them all.

For the rules on experts, a product with a fetched tile is one with the tile of the slot that it was fetched
for.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.isa import F32_LANES, WORD_BYTES, Columns, Op
from lpu.check.findings import Findings
from lpu.check.follow.contexts import MadeRows
from lpu.check.rows import Alike


def wrong_copy(kernel: ColdTileKernel, rows: int, n: Int[np.ndarray, " some"]) -> str:
    """What is wrong with a kernel of fetched tiles in a program of this many rows, or nothing; n: lines."""
    if kernel.expert >= 0 or kernel.paired:
        return "its kernel takes a fixed expert, or halves: a tile of DDR5 is a slot's, and whole"
    if kernel.rows != rows:
        return f"its kernel copies for {kernel.rows} rows, the program has {rows}"
    other = n[n != kernel.wide]
    return f"its kernel has tiles of {kernel.wide} lines, it says {other[0]}" if len(other) else ""


def unfetched(findings: Findings, made: MadeRows) -> Columns:
    """The columns, in which products with fetched tiles name the slot that these are for (rule 7)."""
    c = findings.columns
    rows = np.flatnonzero(c.op == Op.XMF)
    if not len(rows):
        return c
    source = made.find(c.src2_tag[rows])
    fine = (source >= 0) & (c.op[source] == Op.FETCHX) & (c.aux[source] == c.aux[rows])
    fine &= (c.src3[source] == c.src3[rows]) & (c.src3_tag[source] == c.src3_tag[rows])
    fine &= c.chip[source] == c.chip[rows]
    findings.add(7, rows[~fine], "multiplies a tile that was not fetched from where it says")
    op, slot = c.op.copy(), c.src2_tag.copy()
    op[rows] = int(Op.XMM)
    slot[rows] = np.where(fine, c.src_tag[source], -1)
    return replace(c, op=op, src2_tag=slot)


def kept_bytes(findings: Findings, groups: list[Alike], chips: int) -> np.ndarray:
    """Bytes of experts that DDR5 keeps for each chip: of every place that a row fetches from."""
    c, out = findings.columns, np.zeros(chips, np.int64)
    for group in groups:
        k = group.kernel
        if group.op != Op.FETCHX or not isinstance(k, ColdTileKernel):
            continue
        places = np.unique(np.stack([c.chip[group.rows], c.src3[group.rows]]), axis=1)
        size = k.experts * F32_LANES * k.wide * WORD_BYTES
        out += np.bincount(places[0], minlength=chips) * size
    return out
