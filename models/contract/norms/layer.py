"""LAYERNORM: the row less its mean, over its deviation, times a gain, plus a bias.

The two sums are exact integers, so lanes may be shared among chips: the largest magnitude first, then the
sums. Source: facts/contract2.md section 7.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float16, Float32, Int32, Int64

from models.contract.formats import F32, F64, I64, add32, mad32, mul32, pow2, rn16, rn32
from models.contract.norms.square import FRACTION, exponent, integers, inverse_root32

WIDEST = 1 << 20  # lanes whose sums of squares fit int64


class Moments(NamedTuple):
    """Sum and sum of squares of the integers of a row; those of shares of the lanes simply add."""

    first: Int64[Array, "*batch"]
    second: Int64[Array, "*batch"]


def moments(x: Float32[Array, "*batch lanes"], e: Int32[Array, "*batch"]) -> Moments:
    """Of a row or a share of it, e being the exponent of the whole row."""
    m = integers(x, e).astype(I64)
    return Moments(jnp.sum(m, axis=-1), jnp.sum(m * m, axis=-1))


def layer_stat(
    total: Moments, e: Int32[Array, "*batch"], width: int, eps: float
) -> tuple[Float32[Array, "*batch"], Float32[Array, "*batch"]]:
    """Mean and 1 / deviation of rows of `width` lanes. Raises ValueError beyond 2^20 lanes."""
    if not 1 <= width <= WIDEST:
        raise ValueError(f"layer_norm: {width} lanes, the exact sums take 1 to {WIDEST}.")
    d, (s1, ss) = width, total
    c = (2 * s1 + d) // (2 * d)
    s2 = s1 - d * c
    squares = ss - 2 * c * s1 + d * c * c - (2 * s2 * s2 + d) // (2 * d)
    mean = rn32(s1.astype(F64) * (1.0 / d) * pow2(e - FRACTION))
    v = rn32(squares.astype(F64) * (1.0 / d) * pow2(2 * (e - FRACTION))) + F32(eps)
    return mean, inverse_root32(v, jnp.ones_like(v))


def row_stat(
    x: Float32[Array, "*batch lanes"], width: int, eps: float
) -> tuple[Float32[Array, "*batch"], Float32[Array, "*batch"]]:
    """Mean and 1 / deviation of whole rows whose first `width` lanes are theirs, the others zero."""
    e = exponent(x)
    mean, r = layer_stat(moments(x, e), e, width, eps)
    zero = jnp.max(jnp.abs(x), axis=-1) == 0
    return jnp.where(zero, F32(0), mean), jnp.where(zero, F32(0), r)


def layer_apply(
    x: Float32[Array, "*batch width"],
    stat: tuple[Float32[Array, "*batch"], Float32[Array, "*batch"]],
    gain: Float32[Array, "*#batch width"],
    bias: Float32[Array, "*#batch width"],
) -> Float32[Array, "*batch width"]:
    """(x - mean) r gain + bias in f32: three roundings."""
    mean, r = (part[..., None] for part in stat)
    return mad32(mul32(add32(x, -mean), r), gain, bias)


def layer_norm32(
    x: Float32[Array, "*batch width"],
    gain: Float32[Array, " width"],
    bias: Float32[Array, " width"],
    eps: float,
) -> Float32[Array, "*batch width"]:
    """The norm of whole rows in f32; without a bias give zeros. A row of zeros gives the bias."""
    return layer_apply(x, row_stat(x, x.shape[-1], eps), gain, bias)


def layer_norm(
    x: Float32[Array, "*batch width"],
    gain: Float32[Array, " width"],
    bias: Float32[Array, " width"],
    eps: float,
) -> Float16[Array, "*batch width"]:
    """`layer_norm32` in fp16."""
    return rn16(layer_norm32(x, gain, bias, eps))
