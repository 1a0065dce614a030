"""`matmul_scaled`: activations times e4m3 weights with any f32 scale per column, as in fp8 checkpoints.

Source: facts/contract2.md section 4, COLSCALE: y_n = rn32(RN64(odd64(H, L) s_n)), s_n finite, 0 or >= 2^-126.
"""

import math

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32, UInt8

from models.contract import numerics
from models.contract.formats import F64
from models.contract.op import F16, F32, U8, Results, check_operand, check_same, define

Codes = UInt8[Array, "k n"] | Float32[Array, "k n"]


def matmul_scaled(
    a: Float16[Array, "batch k"], codes: Codes, scale: Float32[Array, " n"]
) -> Float32[Array, "batch n"]:
    """Activations times e4m3 weights, with an f32 scale per column."""
    return MATMUL_SCALED.bind(a, codes, scale)


def _shape(a: ShapedArray, codes: ShapedArray, scale: ShapedArray) -> Results:
    """Of a [batch, k], codes [k, n], scale [n]: [batch, n]. F32 weights are for the plain step only."""
    check_operand("matmul_scaled", "a", a, 2, F16)
    check_operand("matmul_scaled", "codes", codes, 2, U8, F32)
    check_operand("matmul_scaled", "scale", scale, 1, F32)
    check_same("matmul_scaled", "k of a and of codes", a.shape[1], codes.shape[0])
    check_same("matmul_scaled", "n of codes and of scale", codes.shape[1], scale.shape[0])
    return (ShapedArray((a.shape[0], codes.shape[1]), F32),)


def _flops(a: ShapedArray, codes: ShapedArray, scale: ShapedArray) -> int:
    return 2 * a.shape[0] * math.prod(codes.shape)


def _contract(a: Array, codes: Array, scale: Array) -> Array:
    if codes.dtype != jnp.uint8:
        raise TypeError(
            f"matmul_scaled: weights are {codes.dtype}, the contract takes e4m3 codes (uint8). "
            "Use contract.plain."
        )
    return numerics.scale_wide(numerics.wide(a, codes), scale.astype(F64))


def _plain(
    a: Float32[Array, "batch k"], codes: Float32[Array, "k n"], scale: Float32[Array, " n"]
) -> Float32[Array, "batch n"]:
    """The weights come scaled: see `contract.plain.plain_params`."""
    return a @ codes


MATMUL_SCALED = define(name="matmul_scaled", shape=_shape, flops=_flops, contract=_contract, plain=_plain)
