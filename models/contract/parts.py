"""A matmul whose K is cut into parts by the model: each summed exactly and rounded, then added by a tree.

Inside a part any split, order or merge keeps the bits (a wide pair carries it between chips). Across parts
only nodes of the tree may be added: one f32 a lane for each, `tree.nodes` says how many. Where K is cut is
data of the model, never derived from a placement. Source: facts/contract2.md section 2.
"""

from collections.abc import Sequence
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float16, Float32, Float64, Int32, UInt8

from models.contract.formats import NumericsError, Wide, odd64, pow2, rn32
from models.contract.numerics import wide
from models.contract.tree import tree32

PARTS = 8  # of the matmuls that are cut, at most (decision 0014)
LEAST = 256  # input rows of a part, at least: a plane takes 320
FFN_UNIT = 32  # input rows of an FFN's down projection that stay together, where they divide its K


def part_starts(units: int, rows: int, parts: int = PARTS) -> tuple[int, ...]:
    """Where the parts of K = units x rows begin and the last one ends: floor(p U / P) u.

    A unit is a head of `o`, 32 input rows of `down`. With fewer units than parts there are as many parts as
    the largest power of two that does not pass the units.
    """
    if units < 1 or rows < 1 or parts < 1:
        raise ValueError(f"parts: {units} units of {rows} rows in {parts} parts: each must be at least 1.")
    while parts > units:
        parts //= 2
    return tuple(p * units // parts * rows for p in range(parts + 1))


def starts_of(k: int, rows: int) -> tuple[int, ...]:
    """Where the parts of K rows begin, in units of this many, and where the last one ends; () for one part.

    As many parts, a power of two, as leave each a unit and `LEAST` rows, and `PARTS` at most.
    """
    most = max(1, min(PARTS, k // rows, k // LEAST))
    return part_starts(k // rows, rows, 1 << (most.bit_length() - 1)) if most > 1 else ()


def down_starts(k: int) -> tuple[int, ...]:
    """Where the parts of an FFN's down projection begin: in units of 32 rows if they divide K, else 1."""
    return starts_of(k, FFN_UNIT if k % FFN_UNIT == 0 else 1)


def check_starts(starts: Sequence[int], k: int) -> None:
    """Raise ValueError unless the parts cover K rows in order, each with at least one."""
    steps = [b - a for a, b in pairwise(starts)]
    if not steps or starts[0] != 0 or starts[-1] != k or min(steps) < 1:
        raise ValueError(f"parts: the starts {list(starts)} do not rise from 0 to K = {k}.")


def leaf(part: Wide, scale: Float64[Array, "*n"]) -> Float32[Array, "*batch n"]:
    """A part's sum times its scale, rounded to f32; the scale is 2^e, or any f32 (one more RN64)."""
    return rn32(odd64(part.high, part.low) * scale)


def leaves(
    a: Float16[Array, "batch k"],
    codes: UInt8[Array, "k n"],
    scale: Float64[Array, "*parts_n"],
    starts: Sequence[int],
) -> Float32[Array, "parts batch n"]:
    """The rounded sum of every part, [parts, batch, n]; scales are [n], or [parts, n] of each part."""
    check_starts(starts, a.shape[1])
    size = starts[1]
    equal = next((p for p, cut in enumerate(pairwise(starts)) if cut != (p * size, p * size + size)), None)
    equal = len(starts) - 1 if equal is None else equal
    every = scale if scale.ndim == 2 else jnp.broadcast_to(scale, (len(starts) - 1, codes.shape[1]))

    def one(part: tuple[Array, Array]) -> Array:
        rows = lax.dynamic_slice_in_dim(a, part[0], size, 1)
        return leaf(wide(rows, lax.dynamic_slice_in_dim(codes, part[0], size, 0)), part[1])

    alike = lax.map(one, (jnp.array(starts[:equal], jnp.int32), every[:equal]))
    rest = [
        leaf(wide(a[:, i:j], codes[i:j]), every[p]) for p, (i, j) in enumerate(pairwise(starts)) if p >= equal
    ]
    return jnp.concatenate([alike, jnp.stack(rest)]) if rest else alike


def product(
    a: Float16[Array, "batch k"],
    codes: UInt8[Array, "k n"],
    scale: Float64[Array, "*n"],
    starts: Sequence[int] = (),
) -> Float32[Array, "batch n"]:
    """Activations times e4m3 weights and a scale per column, part by part; no starts: one part."""
    return tree32(leaves(a, codes, scale, starts)) if starts else leaf(wide(a, codes), scale)


def matmul_parts(
    a: Float16[Array, "batch k"],
    codes: UInt8[Array, "k n"],
    exponent: Int32[Array, "*n"],
    starts: Sequence[int],
) -> Float32[Array, "batch n"]:
    """PARTS: fp16 times e4m3 weights times 2^exponent per column; one part gives the bits of `matmul`."""
    return product(a, codes, pow2(exponent), starts)


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
