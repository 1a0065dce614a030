"""`matmul16`: activations times fp16 weights, for routers: in e4m3 they would choose other experts.

Source: facts/contract2.md section 5, MATMUL16, whose powers of two are applied by what takes the sums
(`route`).
"""

import math

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32

from models.contract import dot16
from models.contract.formats import rn32
from models.contract.op import F16, F32, Results, check_operand, check_same, define

Weights16 = Float16[Array, "k n"] | Float32[Array, "k n"]


def matmul16(a: Float16[Array, "batch k"], weights: Weights16) -> Float32[Array, "batch n"]:
    """Activations times fp16 weights, summed exactly and rounded once."""
    return MATMUL16.bind(a, weights)


def _shape(a: ShapedArray, weights: ShapedArray) -> Results:
    """Of a [batch, k], weights [k, n]: [batch, n]. F32 weights are for the plain step only."""
    check_operand("matmul16", "a", a, 2, F16)
    check_operand("matmul16", "weights", weights, 2, F16, F32)
    check_same("matmul16", "k of a and of weights", a.shape[1], weights.shape[0])
    if a.shape[1] > dot16.MOST_K:
        raise ValueError(
            f"matmul16: k is {a.shape[1]}, sums of fp16 products are exact up to {dot16.MOST_K}."
        )
    return (ShapedArray((a.shape[0], weights.shape[1]), F32),)


def _contract(a: Array, weights: Array) -> Array:
    if weights.dtype != jnp.float16:
        raise TypeError(
            f"matmul16: weights are {weights.dtype}, the contract takes fp16. Use contract.plain."
        )
    return rn32(dot16.rounded_odd(dot16.sums(a, weights)))


MATMUL16 = define(
    name="matmul16",
    shape=_shape,
    flops=lambda a, weights: 2 * a.shape[0] * math.prod(weights.shape),
    contract=_contract,
    plain=lambda a, weights: a @ weights,
)
