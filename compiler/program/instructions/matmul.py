"""Products on the planes: tiles into accumulators, accumulators written back, partial sums added up."""

from dataclasses import dataclass
from typing import ClassVar

from compiler.program.isa import (
    DRAIN,
    F32_LANES,
    MXM,
    SCALE,
    TILE,
    TILE_ROWS,
    TRANSIENT,
    VXM,
    WEIGHTS,
    Count,
    Holds,
    Instruction,
    Kernel,
    Lines,
    Op,
    Operand,
    same,
)

TILE_LINES = TILE_ROWS // F32_LANES  # f32 lines of the columns of one plane
WIDE_PER_F32 = 4  # wide lines that hold as many lanes as one f32 line


@dataclass(frozen=True, slots=True, kw_only=True)
class MatmulKernel(Kernel):
    """A tile of `k_lines` fp16 lines of input rows (a plane takes two)."""

    family: ClassVar[str] = "mm"
    k_lines: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBackKernel(Kernel):
    """wide: partial sums, unscaled, rather than f32."""

    family: ClassVar[str] = "wb"
    wide: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceKernel(Kernel):
    """`parts` wide partials added; wide: left as a wide partial, unscaled, rather than f32."""

    family: ClassVar[str] = "red"
    parts: Count
    wide: bool = False


def _k_lines(n: Lines, k: MatmulKernel) -> Lines:
    return k.k_lines


def _tile_words(n: Lines, k: MatmulKernel) -> Lines:
    return F32_LANES * n


def _all_parts(n: Lines, k: ReduceKernel) -> Lines:
    return WIDE_PER_F32 * n * k.parts


def _result_lines(n: Lines, k: WriteBackKernel | ReduceKernel) -> Lines:
    return WIDE_PER_F32 * n if k.wide else n


def _result(k: WriteBackKernel | ReduceKernel) -> int:
    return Holds.WIDE if k.wide else Holds.F32


def _is_scaled(k: WriteBackKernel | ReduceKernel) -> bool:
    return not k.wide


_SCALES = Operand("src2", WEIGHTS, same, SCALE, present=_is_scaled)
_TO_RESULT = Operand("dst", TRANSIENT, _result_lines, _result)

INSTRUCTIONS = (
    Instruction(
        op=Op.MM,
        name="MM",
        unit=MXM,
        kernel=MatmulKernel,
        reads=(
            Operand("src", TRANSIENT, _k_lines, Holds.F16),
            Operand("src2", WEIGHTS, _tile_words, TILE),
        ),
        write=None,
        most=TILE_LINES,
        numbers=(("dst", "accumulator"),),
    ),
    Instruction(
        op=Op.WB,
        name="WB",
        unit=DRAIN,
        kernel=WriteBackKernel,
        reads=(_SCALES,),
        write=_TO_RESULT,
        most=TILE_LINES,
        numbers=(("src", "accumulator"), ("src3", "products")),
    ),
    Instruction(
        op=Op.RED,
        name="RED",
        unit=VXM,
        kernel=ReduceKernel,
        reads=(
            Operand("src", TRANSIENT, _all_parts, Holds.WIDE, whole=lambda k: WIDE_PER_F32),
            _SCALES,
        ),
        write=_TO_RESULT,
        ordered=True,
    ),
)
