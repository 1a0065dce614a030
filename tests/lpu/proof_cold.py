"""Rows that each rule of the proof accepts, and changes that one condition refuses: experts in DDR5."""

from dataclasses import replace

from proof_experts import MANY, stack_and_route, tiles_of
from proof_rows import Changes, Setting, row

from compiler.program.instructions.cold import ColdTileKernel, copy_lines
from compiler.program.isa import COLD, STACK, Holds, Op
from lpu.prove.lines import ColdTile, ExpertSlot, StackRun
from lpu.prove.rule import RowOperands

KERNEL = ColdTileKernel(k_lines=1, experts=MANY, expert=-1, wide=2, rows=1, host_slot=38)


def _places(s: Setting) -> tuple[StackRun, ExpertSlot]:
    """Where DDR5 keeps two lines of columns of every expert, and the second of three slots."""
    stack, route = stack_and_route(s)
    run = tiles_of(s, stack, s.lanes(0, 160, 320), 0, 80)._replace(kind=COLD)
    return run, ExpertSlot(Holds.SLOT, route, 1, 3, 0, MANY)


def fetchx(s: Setting) -> tuple[RowOperands, Changes]:
    run, slot = _places(s)
    return row(KERNEL, n=2, src=(slot,), preloads=run), {
        "its slot holds f32": {"src": s.f32(s.x, 0)},
        "reads no 1 tiles of a stack": {"n": 1},
        "fetches what lies in SRAM": {"preloads": run._replace(kind=STACK)},
        "copies 3 lines of a tile of 2": {"kernel": replace(KERNEL, wide=3)},
        "its copies are for 2 rows, a step has 1": {"kernel": replace(KERNEL, rows=2)},
    }


def xmf(s: Setting) -> tuple[RowOperands, Changes]:
    run, slot = _places(s)
    copy = tuple(ColdTile(Holds.COLD, run, slot, 0, i) for i in range(copy_lines(KERNEL)))
    other = run._replace(rows=s.lanes(1, 159, 320))
    return row(KERNEL, n=2, src=s.f16(s.x), src2=copy, preloads=run), {
        "its copy holds f16": {"src2": s.f16(s.x)},
        "is not one whole result of 160 lines": {"src2": copy[::-1]},
        "its copy is 2 tiles, not 1": {"src2": copy * 2},
        "its copy is of tiles of another form": {"index": 1},
        "its copy is of other tiles than it says": {"preloads": other},
        "experts from 0 on, its stack of 100 from 0 on": {
            "src2": tuple(one._replace(slot=slot._replace(some=40)) for one in copy)
        },
    }


COLD_ROWS = {Op.FETCHX: fetchx, Op.XMF: xmf}
