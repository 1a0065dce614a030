"""Products in contract parts: K is cut into fixed parts, each summed exactly and rounded once, then added.

Source: facts/contract2.md sections 1 (TREE32) and 2 (PARTS). Inside a part any split keeps the bits; across
parts the tree is the contract's own.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from jax import Array
from jaxtyping import Float16, Float32, Float64, UInt8

from models.contract.formats import add32
from models.contract.numerics import scale_wide, wide

PARTS, LEAST = 16, 256
"""Parts of a product that crosses chips, at most, and rows of a part, at least: groups of 8 and 16 chips deal
them out, and a part fills planes of 320 rows (decision 0014)."""


def starts_of(k: int, unit: int, parts: int = PARTS) -> tuple[int, ...]:
    """First row of each part of K rows and, last, K: parts of whole units of so many rows, almost equal.

    As many as the largest power of two, at most `parts`, that leaves a part a unit and LEAST rows; () for 1.
    """
    units = k // unit
    most = max(1, min(parts, units, k // LEAST))
    count = 1 << (most.bit_length() - 1)
    return (*(p * units // count * unit for p in range(count)), k) if count > 1 else ()


def tree32(
    nodes: Sequence[Float32[Array, "*shape"]], sizes: Sequence[int] | None = None
) -> Float32[Array, "*shape"]:
    """Leaves added pair by pair, level by level; a lone last one moves up unchanged.

    sizes: leaves that are added up in each node already; None: every node is a leaf. Raises ValueError where
    these are no nodes of the tree.
    """
    sizes = [1] * len(nodes) if sizes is None else sizes
    if len(nodes) == 1:
        return nodes[0]
    left = 1 << ((sum(sizes) - 1).bit_length() - 1)  # leaves under the first child
    ends = list(accumulate(sizes))
    if left not in ends:
        raise ValueError(f"parts: {list(sizes)} leaves are no nodes of a tree of {sum(sizes)}.")
    cut = ends.index(left) + 1
    return add32(tree32(nodes[:cut], sizes[:cut]), tree32(nodes[cut:], sizes[cut:]))


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
