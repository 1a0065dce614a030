"""`bias`: a vector added to the result of a matmul, in f32.

Source: facts/contract2.md section 7, Bias: y = add32(MATMUL, b).
"""

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32

from models.contract import numerics
from models.contract.op import F32, Results, check_operand, check_same, define, per_element


def bias(x: Float32[Array, "batch n"], b: Float32[Array, " n"]) -> Float32[Array, "batch n"]:
    """Each row of x plus b; b holds no subnormals."""
    return BIAS.bind(x, b)


def _shape(x: ShapedArray, b: ShapedArray) -> Results:
    """Of x [batch, n] and b [n]: x."""
    check_operand("bias", "x", x, 2, F32)
    check_operand("bias", "b", b, 1, F32)
    check_same("bias", "n of x and of b", x.shape[1], b.shape[0])
    return (ShapedArray(x.shape, F32),)


def _contract(x: Array, b: Array) -> Array:
    return numerics.add32(x, jnp.broadcast_to(b, x.shape))


def _plain(x: Float32[Array, "batch n"], b: Float32[Array, " n"]) -> Float32[Array, "batch n"]:
    return x + b


BIAS = define(name="bias", shape=_shape, flops=per_element(1), contract=_contract, plain=_plain)
