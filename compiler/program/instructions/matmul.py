"""Products on the planes: tiles into accumulators, accumulators written back, partial sums added up."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
MOST_LEAVES = 30  # of a tree: `begins` is a count
WIDE_PER_F32 = 4  # wide lines that hold as many lanes as one f32 line


@dataclass(frozen=True, slots=True, kw_only=True)
class MatmulKernel(Kernel):
    """A tile of `k_lines` fp16 lines of input rows (a plane takes two)."""

    family: ClassVar[str] = "mm"
    k_lines: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBackKernel(Kernel):
    """The sum of `products` products. wide: a partial sum, unscaled, rather than f32.

    normed: times the statistic of each row. part: the f32 sum of a contract part, to be added by TREE.
    """

    family: ClassVar[str] = "wb"
    wide: bool
    products: Count
    normed: bool = False
    part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceKernel(Kernel):
    """`parts` wide partials added; wide: left as a wide partial, unscaled, rather than f32.

    normed: times the statistic of each row.
    """

    family: ClassVar[str] = "red"
    parts: Count
    wide: bool = False
    normed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeKernel(Kernel):
    """Nodes of a tree over `leaves` contract parts added; bit i of `begins`: a node begins with leaf i.

    whole: the leaves are all of the product's, so that the sum is the product; else it is a node itself.
    Source: facts/contract2.md section 2.
    """

    family: ClassVar[str] = "tree"
    leaves: Count
    begins: Count
    whole: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        """Leaves of each node, in order; of bits beyond the leaves none."""
        first = [leaf for leaf in range(min(self.leaves, MOST_LEAVES)) if self.begins >> leaf & 1]
        return tuple(end - begin for begin, end in pairwise([*first, self.leaves]))


def tree_kernel(sizes: Sequence[int], *, whole: bool) -> TreeKernel:
    """The kernel that adds nodes of these sizes."""
    begins, at = 0, 0
    for size in sizes:
        begins, at = begins | 1 << at, at + size
    return TreeKernel(leaves=at, begins=begins, whole=whole)


def in_tree(first: int, size: int, leaves: int) -> bool:
    """Whether the leaves first .. first+size-1 are all that is under one node of a tree of `leaves`."""
    if first + size > leaves:
        return False
    span = 1 << (size - 1).bit_length()  # of the full node that it is, or is the end of
    return first % span == 0 and (size == span or first + size == leaves)


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
    if isinstance(k, WriteBackKernel) and k.part:
        return Holds.NODE
    return Holds.WIDE if k.wide else Holds.F32


def _all_nodes(n: Lines, k: TreeKernel) -> Lines:
    return n * len(k.sizes)


def _sum(k: TreeKernel) -> int:
    return Holds.F32 if k.whole else Holds.NODE


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
    Instruction(
        op=Op.TREE,
        name="TREE",
        unit=VXM,
        kernel=TreeKernel,
        reads=(Operand("src", TRANSIENT, _all_nodes, Holds.NODE),),
        write=Operand("dst", TRANSIENT, same, _sum),
        ordered=True,
    ),
)
