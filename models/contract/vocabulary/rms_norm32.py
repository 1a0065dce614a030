"""`rms_norm32`: a vector over its root mean square, times a gain, in f32: before a residual sum.

Source: facts/contract2.md section 7, RMS32.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32

from models.contract.norms.square import rms32
from models.contract.op import F32, Results, check_operand, check_same, define, per_element
from models.contract.vocabulary.rms_norm import WIDEST


def rms_norm32(
    x: Float32[Array, "batch width"], gain: Float32[Array, " width"], *, eps: float
) -> Float32[Array, "batch width"]:
    """RMS norm of each row, rounded to f32 after each of its two products."""
    return RMS_NORM32.bind(x, gain, eps=eps)


def _shape(x: ShapedArray, gain: ShapedArray, *, eps: float) -> Results:
    check_operand("rms_norm32", "x", x, 2, F32)
    check_operand("rms_norm32", "gain", gain, 1, F32)
    check_same("rms_norm32", "width of x and of gain", x.shape[1], gain.shape[0])
    if x.shape[1] > WIDEST:
        raise ValueError(f"rms_norm32: width {x.shape[1]} is above {WIDEST}, the widest exact sum.")
    return (ShapedArray(x.shape, F32),)


def _plain(
    x: Float32[Array, "batch width"], gain: Float32[Array, " width"], *, eps: float
) -> Float32[Array, "batch width"]:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + jnp.float32(eps)) * gain


RMS_NORM32 = define(
    name="rms_norm32",
    shape=_shape,
    flops=per_element(4),
    contract=lambda x, gain, *, eps: rms32(x, gain, eps),
    plain=_plain,
)
