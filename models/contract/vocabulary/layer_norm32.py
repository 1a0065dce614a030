"""`layer_norm32`: a vector less its mean, over its deviation, times a gain, plus a bias, in f32.

Source: facts/contract2.md section 7, LAYERNORM, before its rounding to fp16.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32

from models.contract.norms.layer import WIDEST
from models.contract.norms.layer import layer_norm32 as exact
from models.contract.op import F32, Results, check_operand, check_same, define, per_element


def layer_norm32(
    x: Float32[Array, "batch width"],
    gain: Float32[Array, " width"],
    bias: Float32[Array, " width"],
    *,
    eps: float,
) -> Float32[Array, "batch width"]:
    """Layer norm of each row, rounded to f32 after each of its three steps; a row of zeros gives the bias."""
    return LAYER_NORM32.bind(x, gain, bias, eps=eps)


def _shape(x: ShapedArray, gain: ShapedArray, bias: ShapedArray, *, eps: float) -> Results:
    check_operand("layer_norm32", "x", x, 2, F32)
    check_operand("layer_norm32", "gain", gain, 1, F32)
    check_operand("layer_norm32", "bias", bias, 1, F32)
    check_same("layer_norm32", "width of x and of gain", x.shape[-1], gain.shape[0])
    check_same("layer_norm32", "width of x and of bias", x.shape[-1], bias.shape[0])
    if x.shape[-1] > WIDEST:
        raise ValueError(f"layer_norm32: width {x.shape[-1]} is above {WIDEST}, the widest exact sums.")
    return (ShapedArray(x.shape, F32),)


def _contract(x: Array, gain: Array, bias: Array, *, eps: float) -> Array:
    return exact(x, gain, bias, eps)


def _plain(x: Array, gain: Array, bias: Array, *, eps: float) -> Array:
    apart = x - jnp.mean(x, axis=-1, keepdims=True)
    spread = jnp.mean(apart * apart, axis=-1, keepdims=True) + jnp.float32(eps)
    return apart * jax.lax.rsqrt(spread) * gain + bias


LAYER_NORM32 = define(
    name="layer_norm32", shape=_shape, flops=per_element(8), contract=_contract, plain=_plain
)
