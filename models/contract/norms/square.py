"""The norms that divide by a root of squares and stay f32: RMS32 and L2NORM.

Source: facts/contract2.md section 7. A norm of gains 1 + w is given RN32(1 + w) by the loader; Llama 4's
"L2Norm" divides by the mean square, so it is an rms norm with gains of 1.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float32, Float64, Int32

from models.contract.formats import F32, F64, mul32, pow2, rn32
from models.contract.numerics import rms_stat

FRACTION = 19  # bits that a value keeps below the exponent of the largest


def rms32(
    x: Float32[Array, "*batch width"], gain: Float32[Array, "*heads width"], eps: float
) -> Float32[Array, "*batch width"]:
    """RMS32: (x r) gain in f32, r = 1 / rms of the row; for norms before a residual sum."""
    return mul32(mul32(x, rms_stat(x, x.shape[-1], eps)[..., None]), gain)


def l2_norm(x: Float32[Array, "*batch width"], eps: float = 1e-6) -> Float32[Array, "*batch width"]:
    """L2NORM: the row over the root of its sum of squares; a row of zeros stays."""
    e = exponent(x)
    m = integers(x, e)
    v = rn32(jnp.sum(m * m, axis=-1) * pow2(2 * (e - FRACTION))) + F32(eps)
    return mul32(x, inverse_root32(v, jnp.max(jnp.abs(x), axis=-1))[..., None])


def exponent(x: Float32[Array, "*batch width"]) -> Int32[Array, "*batch"]:
    """E of a row, 2^(E - 1) <= max |x| < 2^E: over chips, the largest of theirs."""
    top = jnp.max(jnp.abs(x), axis=-1)
    return (lax.bitcast_convert_type(top, jnp.int32) >> 23) - 126


def integers(x: Float32[Array, "*batch width"], e: Int32[Array, "*batch"]) -> Float64[Array, "*batch width"]:
    """RN_int(x 2^(19 - E)): integers up to 2^19 whose sums, and those of their squares, are exact."""
    return jnp.round(x.astype(F64) * pow2(FRACTION - e)[..., None])


def inverse_root32(v: Float32[Array, "*batch"], top: Float32[Array, "*batch"]) -> Float32[Array, "*batch"]:
    """RN32(1 / sqrt(v)), 0 for a row whose largest magnitude `top` is 0."""
    return jnp.where(top == 0, F32(0), rn32(1.0 / jnp.sqrt(v.astype(F64))))
