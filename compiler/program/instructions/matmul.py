"""Products on the planes: tiles into accumulators, accumulators written back, partial sums added up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

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
    one,
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
    """The sum of `products` products. wide: a partial sum, unscaled, rather than f32.

    normed: times the statistic of each row.
    """

    family: ClassVar[str] = "wb"
    wide: bool
    products: Count
    normed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceKernel(Kernel):
    """`parts` wide partials added; wide: left as a wide partial, unscaled, rather than f32.

    normed: times the statistic of each row.
    """

    family: ClassVar[str] = "red"
    parts: Count
    wide: bool = False
    normed: bool = False


def products_of(kernels: Sequence[Kernel]) -> Int[np.ndarray, " kernels"]:
    """How many products a write-back of each kernel closes; 0 for kernels of other rows."""
    return np.array([k.products if isinstance(k, WriteBackKernel) else 0 for k in kernels], np.int64)


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


def _is_normed(k: WriteBackKernel | ReduceKernel) -> bool:
    return k.normed


def _scales(column: str) -> Operand:
    return Operand(column, WEIGHTS, same, SCALE, present=_is_scaled)


def _statistic(column: str) -> Operand:
    return Operand(column, TRANSIENT, one, Holds.STAT, present=_is_normed)


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
        reads=(_statistic("src"), _scales("src2")),
        write=_TO_RESULT,
        most=TILE_LINES,
        numbers=(("src3", "accumulator"),),
    ),
    Instruction(
        op=Op.RED,
        name="RED",
        unit=VXM,
        kernel=ReduceKernel,
        reads=(
            Operand("src", TRANSIENT, _all_parts, Holds.WIDE, whole=lambda k: WIDE_PER_F32),
            _statistic("src2"),
            _scales("src3"),
        ),
        write=_TO_RESULT,
        ordered=True,
    ),
)
