"""Products in contract parts: K is cut into fixed parts, each summed exactly and rounded once, then added.

Source: facts/contract2.md sections 1 (TREE32) and 2 (PARTS). Inside a part any split keeps the bits; across
parts the tree is the contract's own.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float16, Float32, Float64, UInt8

from models.contract.formats import NumericsError, add32
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


def leaves(
    a: Float16[Array, "batch k"],
    codes: UInt8[Array, "k n"],
    scale: Float64[Array, "*parts_n"],
    starts: Sequence[int],
) -> Float32[Array, "parts batch n"]:
    """The rounded sum of every part, for many of them: those of equal rows are one loop.

    Scales are [n], or [parts, n] of each part. Raises ValueError if the parts do not cover K in order.
    """
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != a.shape[1] or sorted(set(starts)) != list(starts):
        raise ValueError(f"parts: the starts {list(starts)} do not rise from 0 to K = {a.shape[1]}.")
    count, size = len(starts) - 1, starts[1]
    cuts = list(pairwise(starts))
    equal = next((p for p in range(count) if cuts[p] != (p * size, p * size + size)), count)
    every = scale if scale.ndim == 2 else jnp.broadcast_to(scale, (count, codes.shape[1]))

    def one(part: tuple[Array, Array]) -> Array:
        rows = lax.dynamic_slice_in_dim(a, part[0], size, 1)
        return scale_wide(wide(rows, lax.dynamic_slice_in_dim(codes, part[0], size, 0)), part[1])

    alike = lax.map(one, (jnp.array(starts[:equal], jnp.int32), every[:equal]))
    if equal == count:
        return alike
    rest = [scale_wide(wide(a[:, i:j], codes[i:j]), every[p]) for p, (i, j) in enumerate(cuts) if p >= equal]
    return jnp.concatenate([alike, jnp.stack(rest)])


def refuse_overflow(op: str, y: Float32[np.ndarray, "*shape"]) -> None:
    """Raise NumericsError if a part or a node passed f32: it stays infinite, or no number, up to the root."""
    if wrong := int(np.sum(~np.isfinite(y))):
        raise NumericsError(
            f"{op}: {wrong} of {y.size} sums pass the largest f32, {np.finfo(np.float32).max:.6g}, in a part "
            "or a node. Lower the scale of the weights or of the activations."
        )


def refuse_codes(op: str, codes: UInt8[np.ndarray, "*shape"]) -> None:
    """Raise NumericsError if a weight is one of the two e4m3 codes that are no number."""
    if wrong := int(np.sum(codes & 0x7F == 0x7F)):
        raise NumericsError(
            f"{op}: {wrong} of {codes.size} e4m3 codes are 0x7f or 0xff, which are no number."
        )
