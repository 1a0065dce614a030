"""`rms_norm`: a vector over its root mean square, times a gain."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32

from models.contract import numerics
from models.contract.op import F16, F32, Results, check_operand, check_same, define, per_element

WIDEST = 32_768  # the widest exact sum of squares


def rms_norm(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"], *, eps: float
) -> Float16[Array, "*batch width"]:
    """RMS norm over the last axis: of [batch, hidden], or per head of [batch, heads, head_dim]."""
    return RMS_NORM.bind(x, gain, eps=eps)


def _shape(x: ShapedArray, gain: ShapedArray, *, eps: float) -> Results:
    check_operand("rms_norm", "x", x, None, F32)
    check_operand("rms_norm", "gain", gain, 1, F32)
    check_same("rms_norm", "width of x and of gain", x.shape[-1], gain.shape[0])
    if x.shape[-1] > WIDEST:
        raise ValueError(f"rms_norm: width {x.shape[-1]} is above {WIDEST}, the widest exact sum of squares.")
    return (ShapedArray(x.shape, F16),)


def _plain(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"], *, eps: float
) -> Float32[Array, "*batch width"]:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + jnp.float32(eps)) * gain


RMS_NORM = define(
    name="rms_norm", shape=_shape, flops=per_element(4), contract=numerics.rms_norm, plain=_plain
)
