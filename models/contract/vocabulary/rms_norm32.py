"""`rms_norm32`: a vector over its root mean square, times a gain, in f32: before a residual sum.

Source: facts/contract2.md section 7, RMS32.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float, Float32

from models.contract.norms.square import rms32
from models.contract.op import F16, F32, Results, check_operand, define, per_element
from models.contract.vocabulary.rms_norm import WIDEST


def rms_norm32(
    x: Float[Array, "batch *heads width"], gain: Float32[Array, " gains"], *, eps: float
) -> Float32[Array, "batch *heads width"]:
    """RMS norm of each row, or of each head of it, rounded to f32 after each of its two products.

    x may be fp16. gain: of `width` lanes, or of those of every head.
    """
    return RMS_NORM32.bind(x, gain, eps=eps)


def _shape(x: ShapedArray, gain: ShapedArray, *, eps: float) -> Results:
    check_operand("rms_norm32", "x", x, None, F32, F16)
    check_operand("rms_norm32", "gain", gain, 1, F32)
    if len(x.shape) not in (2, 3):
        raise ValueError(f"rms_norm32: x has {len(x.shape)} axes, it takes [batch, width] or those of heads.")
    width, every = x.shape[-1], math.prod(x.shape[1:])
    if gain.shape[0] not in (width, every):
        raise ValueError(
            f"rms_norm32: gain has {gain.shape[0]} lanes, x {width} in a head and {every} in a row."
        )
    if width > WIDEST:
        raise ValueError(f"rms_norm32: width {width} is above {WIDEST}, the widest exact sum.")
    return (ShapedArray(x.shape, F32),)


def _gain(x: Array, gain: Array) -> Array:
    return gain if gain.shape[0] == x.shape[-1] else gain.reshape(x.shape[1:])


def _contract(x: Array, gain: Array, *, eps: float) -> Array:
    return rms32(x.astype(jnp.float32), _gain(x, gain), eps)


def _plain(x: Array, gain: Array, *, eps: float) -> Array:
    root = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + jnp.float32(eps))
    return x * root * _gain(x, gain)


RMS_NORM32 = define(name="rms_norm32", shape=_shape, flops=per_element(4), contract=_contract, plain=_plain)
