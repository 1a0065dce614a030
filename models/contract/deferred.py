"""The deferred norm: a matmul takes the vector before its norm is known, 1 / rms multiplies the result.

The matmul need not wait for the sum of squares over all chips. Its input is the vector times the gain times a
power of two that belongs to the model, rounded to fp16; whatever is clipped there is counted.
Source: facts/contract2.md section 3.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float16, Float32, Float64, Int32, Int64

from models.contract.formats import F64, NumericsError, clips16, pow2, rn16, rn32
from models.contract.numerics import rms_stat as rms_stat

HEADROOM = 1  # binades above the largest gain, the default


class Deferred(NamedTuple):
    """What the matmul takes, and how many of its values were clipped: none, unless the caller allows it."""

    u: Float16[Array, "*batch width"]
    clips: Int64[Array, ""]


def default_exponent(gain: Float32[np.ndarray, " width"]) -> int:
    """The k of a norm: Eg + 1, where 2^(Eg - 1) <= max |gain| < 2^Eg; written into the weights."""
    return math.frexp(float(np.max(np.abs(gain))))[1] + HEADROOM


def before(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"], k: int | Int32[Array, ""]
) -> Deferred:
    """The input of the matmul, rn16(rn32(x gain 2^-k)), product and scale exact in f64."""
    scaled = rn32(x.astype(F64) * gain.astype(F64) * pow2(-jnp.asarray(k)))
    return Deferred(rn16(scaled), clips16(scaled))


def after(
    t: Float32[Array, "*batch n"], r: Float32[Array, "*batch"], k: int | Int32[Array, ""]
) -> Float32[Array, "*batch n"]:
    """The matmul's result times 1 / rms of its row times 2^k, an exact product rounded once.

    r is that of `rms_stat`: 0 for a row of zeros.
    """
    return rn32(t.astype(F64) * r.astype(F64)[..., None] * pow2(jnp.asarray(k)))


def refuse_clips(norm: str, clips: int, k: int) -> None:
    """Raise NumericsError if a value was clipped."""
    if clips:
        raise NumericsError(
            f"{norm}: {clips} values pass 65504 x 2^{k}, what the deferred norm's fp16 input holds. "
            f"Give this norm a larger k than {k}, or allow clips."
        )


def shift(gain: Float32[Array, " width"]) -> Int32[Array, ""]:
    """The k of a norm as `default_exponent` has it, traced; 1 for a gain of zeros."""
    return jnp.frexp(jnp.max(jnp.abs(gain)))[1] + HEADROOM


def prescale(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"]
) -> Float16[Array, "*batch width"]:
    """What a product takes instead of the normalised vector: x gain 2^-k in fp16, clipped to its range."""
    return before(x, gain, shift(gain)).u


def apply_gain(
    x: Float32[Array, "*batch width"], shifted: Float64[Array, "*gain"]
) -> Float16[Array, "*batch width"]:
    """The same of a gain that is over 2^k already."""
    return rn16(rn32(x.astype(F64) * shifted))


def shifted_stat(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"], eps: float
) -> Float32[Array, "*batch"]:
    """2^k / rms over the last axis; 0 for a row of zeros."""
    return scale_stat(rms_stat(x, x.shape[-1], eps), pow2(shift(gain)))


def scale_stat(r: Float32[Array, "*batch"], factor: Float64[Array, "*factor"]) -> Float32[Array, "*batch"]:
    """1 / rms times a power of two, exactly."""
    return rn32(r.astype(F64) * factor)


def scale_rows(t: Float32[Array, "*batch n"], r: Float32[Array, "*stat"]) -> Float32[Array, "*batch n"]:
    """`after` with a statistic that has 2^k in it; r broadcasts against t."""
    return rn32(t.astype(F64) * r.astype(F64))
