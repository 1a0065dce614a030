"""The deferred norm: a row's statistic meets a product after its sum, so that the sum waits for no statistic.

Source: facts/contract2.md section 3, DEFER. With 2^(E-1) <= max |gain| < 2^E and k = E + 1:
u = rn16(rn32(x gain 2^-k)); t = the product of u; y = rn32(t r 2^k), where r is 1 / rms of x.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float16, Float32, Float64, Int, Int64

from models.contract.formats import F64, NumericsError, clips16, pow2, rn16, rn32
from models.contract.numerics import rms_stat


def shift(gain: Float32[Array, " width"]) -> Int[Array, ""]:
    """The k of a gain, an integer: one binade of room above its largest entry; 1 for a gain of zeros."""
    return jnp.frexp(jnp.max(jnp.abs(gain)))[1] + 1


def shifted_gain(gain: Float32[Array, " width"]) -> Float64[Array, " width"]:
    """The gain times 2^-k, exactly."""
    return gain.astype(F64) * pow2(-shift(gain))


def prescale(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"]
) -> Float16[Array, "*batch width"]:
    """What a product takes instead of the normalised vector: x gain 2^-k in fp16, clipped to its range."""
    return apply_gain(x, shifted_gain(gain))


def apply_gain(
    x: Float32[Array, "*batch width"], gain: Float64[Array, "*gain"]
) -> Float16[Array, "*batch width"]:
    """X times a gain that is shifted already; the product of the two is exact in f64."""
    return rn16(rn32(x.astype(F64) * gain))


def shifted_stat(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"], eps: float
) -> Float32[Array, "*batch"]:
    """2^k / rms over the last axis; 0 for a row of zeros."""
    return scale_stat(rms_stat(x, x.shape[-1], eps), pow2(shift(gain)))


def scale_stat(r: Float32[Array, "*batch"], factor: Float64[Array, "*factor"]) -> Float32[Array, "*batch"]:
    """1/rms times a power of two."""
    return rn32(r.astype(F64) * factor)


def scale_rows(t: Float32[Array, "*batch n"], r: Float32[Array, "*stat"]) -> Float32[Array, "*batch n"]:
    """A product times the statistic of its row, one f32 product; r broadcasts against t."""
    return rn32(t.astype(F64) * r.astype(F64))


def clips(x: Float32[Array, "*batch width"], gain: Float64[Array, "*gain"]) -> Int64[Array, ""]:
    """How many values `apply_gain` clips to fp16's range: none, unless the caller allows it."""
    return clips16(rn32(x.astype(F64) * gain))


def refuse_clips(norm: str, count: int, k: int) -> None:
    """Raise NumericsError if a value was clipped."""
    if count:
        raise NumericsError(
            f"{norm}: {count} values pass 65504 x 2^{k}, what the deferred norm's fp16 input holds. "
            f"Give this norm a larger k than {k}, or allow clips."
        )
