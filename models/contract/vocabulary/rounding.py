"""`round16` and `round8`: values in fp16, and fp16 values rounded to e4m3."""

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32

from models.contract import numerics
from models.contract.formats import decode_e4m3, rn8
from models.contract.op import F16, F32, Results, check_operand, define, per_element


def round16(x: Float32[Array, "*shape"]) -> Float16[Array, "*shape"]:
    """The values in fp16."""
    return ROUND16.bind(x)


def round8(x: Float16[Array, "*shape"]) -> Float16[Array, "*shape"]:
    """The values rounded to e4m3, in fp16, which holds every one of them."""
    return ROUND8.bind(x)


def _shape16(x: ShapedArray) -> Results:
    check_operand("round16", "x", x, None, F32)
    return (ShapedArray(x.shape, F16),)


def _shape8(x: ShapedArray) -> Results:
    check_operand("round8", "x", x, None, F16)
    return (ShapedArray(x.shape, F16),)


def _contract8(x: Array) -> Array:
    return decode_e4m3(rn8(x.astype(jnp.float32))).astype(jnp.float16)


def _plain(x: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Nothing is rounded: f32 stays f32."""
    return x


ROUND16 = define(name="round16", shape=_shape16, flops=per_element(0), contract=numerics.rn16, plain=_plain)
ROUND8 = define(name="round8", shape=_shape8, flops=per_element(0), contract=_contract8, plain=_plain)
