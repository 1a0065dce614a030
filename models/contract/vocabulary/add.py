"""`add`: the residual sum."""

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float, Float32

from models.contract import numerics
from models.contract.op import F16, F32, Results, check_operand, check_same, define, per_element


def add(x: Float32[Array, "*shape"], y: Float[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The residual sum; y may be fp16."""
    return ADD.bind(x, y)


def _shape(x: ShapedArray, y: ShapedArray) -> Results:
    check_operand("add", "x", x, None, F32)
    check_operand("add", "y", y, None, F32, F16)
    check_same("add", "shapes of x and y", x.shape, y.shape)
    return (ShapedArray(x.shape, F32),)


def _contract(x: Array, y: Array) -> Array:
    return numerics.add32(x, y.astype(jnp.float32))


def _plain(x: Float32[Array, "*shape"], y: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    return x + y


ADD = define(name="add", shape=_shape, flops=per_element(1), contract=_contract, plain=_plain)
