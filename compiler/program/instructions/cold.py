"""Tiles of experts that lie in DDR5: fetched into transient lines, and multiplied from there.

A step knows by its slots which experts it takes, not before: the lane brings the tile of a slot's expert in
as many cycles whichever that is. The address in DDR5 is data, as the tile of a stack in SRAM is for XMM.
"""

from dataclasses import dataclass
from typing import ClassVar

from compiler.program.instructions.experts import ExpertTileKernel
from compiler.program.instructions.matmul import TILE_LINES
from compiler.program.isa import (
    COLD,
    F32_LANES,
    HOST_IN,
    MXM,
    TRANSIENT,
    WEIGHTS,
    Count,
    Holds,
    Instruction,
    Lines,
    Op,
    Operand,
    ceil_div,
    one,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdTileKernel(ExpertTileKernel):
    """A tile of `wide` lines of the slot's expert, copied in a step of `rows` rows over a lane.

    host_slot: cycles of a word on the lane.
    """

    family: ClassVar[str] = "xmf"
    wide: Count
    rows: Count
    host_slot: Count


def tile_words(k: ColdTileKernel) -> int:
    """Words of a tile, a column each."""
    return F32_LANES * k.wide


def copy_lines(k: ColdTileKernel) -> int:
    """Lines that a copy of a tile takes."""
    return ceil_div(tile_words(k), k.rows)


def _copy(n: Lines, k: ColdTileKernel) -> Lines:
    return copy_lines(k)


def _k_lines(n: Lines, k: ColdTileKernel) -> Lines:
    return k.k_lines


def _places(n: Lines, k: ColdTileKernel) -> Lines:
    return k.experts


INSTRUCTIONS = (
    Instruction(
        op=Op.FETCHX,
        name="FETCHX",
        unit=HOST_IN,
        kernel=ColdTileKernel,
        reads=(Operand("src", TRANSIENT, one, Holds.SLOT), Operand("src3", WEIGHTS, _places, COLD)),
        write=Operand("dst", TRANSIENT, _copy, Holds.COLD),
        most=TILE_LINES,
    ),
    Instruction(
        op=Op.XMF,
        name="XMF",
        unit=MXM,
        kernel=ColdTileKernel,
        reads=(
            Operand("src", TRANSIENT, _k_lines, Holds.F16),
            Operand("src2", TRANSIENT, _copy, Holds.COLD, whole=copy_lines, installed=True),
            Operand("src3", WEIGHTS, _places, COLD),
        ),
        write=None,
        most=TILE_LINES,
        numbers=(("dst", "accumulator"),),
    ),
)
