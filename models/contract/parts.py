"""Products in contract parts: K is cut into fixed parts, each summed exactly and rounded once, then added.

Source: facts/contract2.md sections 1 (TREE32) and 2 (PARTS). Inside a part any split keeps the bits; across
parts the tree is the contract's own.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from jax import Array
from jaxtyping import Float16, Float32, Float64, UInt8

from models.contract.formats import add32
from models.contract.numerics import scale_wide, wide

PARTS = 16
"""Parts of a product that crosses chips: 16 serves groups of 8 and of 16 chips (decision 0014)."""

Leaf = TypeVar("Leaf")


def starts_of(k: int, unit: int, parts: int = PARTS) -> tuple[int, ...]:
    """First row of each part of K rows and, last, K: parts of whole units of so many rows, almost equal.

    As many parts as the largest power of two that is at most `parts` and the number of units.
    """
    units = k // unit
    count = min(parts, 1 << (units.bit_length() - 1))
    return tuple(p * units // count * unit for p in range(count)) + (k,)


def halves_of(size: int) -> tuple[int, int]:
    """Leaves under the two children of a tree node of `size` leaves, at least 2."""
    left = 1 << ((size - 1).bit_length() - 1)
    return left, size - left


def tree32(leaves: Sequence[Float32[Array, "*shape"]]) -> Float32[Array, "*shape"]:
    """Neighbours added pair by pair, level by level; a lone last one moves up unchanged."""
    if len(leaves) == 1:
        return leaves[0]
    left, _ = halves_of(len(leaves))
    return add32(tree32(leaves[:left]), tree32(leaves[left:]))


def product(
    a: Float16[Array, "batch k"],
    codes: UInt8[Array, "k n"],
    scale: Float64[Array, "*n"],
    starts: tuple[int, ...] = (),
) -> Float32[Array, "batch n"]:
    """Activations times e4m3 weights and a scale per column, part by part; no starts: one part."""
    if not starts:
        return scale_wide(wide(a, codes), scale)
    cuts = pairwise(starts)
    return tree32([scale_wide(wide(a[:, begin:end], codes[begin:end]), scale) for begin, end in cuts])
