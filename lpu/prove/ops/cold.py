"""Proof rules of tiles of experts that DDR5 keeps: what is fetched, and products with it."""

from typing import Any

from compiler.program.instructions.cold import copy_lines
from compiler.program.isa import COLD, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import ColdTile
from lpu.prove.ops.experts import product, stack_of
from lpu.prove.ops.taken import blocks, of_kind
from lpu.prove.refused import need
from lpu.prove.rule import Proved, RowOperands


def _fetch(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """A copy of the tile of a slot's expert, of those that DDR5 keeps."""
    of_kind(row.src, Holds.SLOT, "its slot")
    run = stack_of(row)
    need(run.kind == COLD, "fetches what lies in SRAM")
    k, rows = row.kernel, known.manifest.rows
    need(k.wide == row.n, f"copies {k.wide} lines of a tile of {row.n}")
    need(k.rows == rows, f"its copies are for {k.rows} rows, a step has {rows}")
    return tuple(ColdTile(Holds.COLD, run, row.src[0], row.index, i) for i in range(copy_lines(k)))


def _xmf(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """As XMM, with a copy that was fetched for a slot from where the row says."""
    found = blocks(row.src2, ColdTile, copy_lines(row.kernel), Holds.COLD, "its copy")
    need(len(found) == 1, f"its copy is {len(found)} tiles, not 1")
    need(found[0].kernel == row.index, "its copy is of tiles of another form")
    need(found[0].run == stack_of(row), "its copy is of other tiles than it says")
    return product(known, row, found[0].run, found[0].slot)


PROOF = (Proved(op=Op.FETCHX, rule=_fetch), Proved(op=Op.XMF, rule=_xmf))
