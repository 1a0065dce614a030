"""COMBINE: the weighted sum of expert results in 64-bit fixed point, in any order and from anywhere.

A leaf is a chosen expert (or a contract part of one) or a shared expert; which chip, replica or slot computed
it leaves no trace, as integers add in any order. One partial sum crosses chips: 8 bytes a lane.
Source: facts/contract2.md section 5.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32, Float64, Int64

from models.contract.formats import F64, I64, NumericsError, rn32

BITS = 32  # F, the bits of fraction of a layer, unless its data say otherwise
LARGEST_TERM, LARGEST_SUM = 2.0**56, 2**53


def terms(
    weight: Float32[Array, " leaves"], result: Float32[Array, "leaves lanes"], bits: int = BITS
) -> Int64[Array, "leaves lanes"]:
    """Every leaf's share, RN_int(w t 2^F)."""
    return _scaled(weight, result, bits).astype(I64)


def combined(total: Int64[Array, "*lanes"], bits: int = BITS) -> Float32[Array, "*lanes"]:
    """The exact sum of all terms as f32; the residual is added to it once, afterwards."""
    return rn32(total.astype(F64) * 2.0**-bits)


def combine(
    weight: Float32[Array, " leaves"], result: Float32[Array, "leaves lanes"], bits: int = BITS
) -> Float32[Array, " lanes"]:
    """The weighted sum of all leaves of a row."""
    return combined(jnp.sum(terms(weight, result, bits), axis=0), bits)


def overflows(
    weight: Float32[Array, " leaves"], result: Float32[Array, "leaves lanes"], bits: int = BITS
) -> Int64[Array, ""]:
    """Lanes that a term of 2^56 or more, or a sum beyond 2^53, makes meaningless."""
    scaled = _scaled(weight, result, bits)
    size = jnp.abs(scaled)
    exact = jnp.abs(jnp.sum(jnp.where(size < LARGEST_TERM, scaled, 0).astype(I64), axis=0))
    # An f64 sum tells by far what an int64 sum that wrapped around does not.
    wrong = jnp.any(~(size < LARGEST_TERM), axis=0) | (exact > LARGEST_SUM)
    wrong |= jnp.abs(jnp.sum(scaled, axis=0)) > 2.0 * LARGEST_SUM
    return jnp.sum(wrong, dtype=I64)


def _scaled(weight: Array, result: Array, bits: int) -> Float64[Array, "leaves lanes"]:
    return jnp.round(weight.astype(F64)[:, None] * result.astype(F64) * 2.0**bits)


def refuse_overflow(layer: str, lanes: int, bits: int = BITS) -> None:
    """Raise NumericsError for lanes that `overflows` counted."""
    if lanes:
        raise NumericsError(
            f"{layer}: {lanes} lanes of the combine pass 2^53 at {bits} bits of fraction, that is "
            f"{2.0 ** (53 - bits):g}. Give this layer fewer bits than {bits}."
        )
