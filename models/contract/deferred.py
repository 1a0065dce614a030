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
from jaxtyping import Float16, Float32, Int32, Int64

from models.contract.formats import F32, F64, I64, NumericsError, pow2, rn16, rn32
from models.contract.numerics import rms_stat as rms_stat

LARGEST = 65504.0  # of fp16
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
    return Deferred(rn16(scaled), jnp.sum(jnp.abs(scaled) > F32(LARGEST), dtype=I64))


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
