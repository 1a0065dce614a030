"""`matmul`: activations times e4m3 weights with a scale per column."""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32, Int32, Shaped, UInt8

from models.contract import numerics
from models.contract.formats import pow2
from models.contract.op import F16, F32, I32, U8, Results, check_operand, check_same, define

Codes = UInt8[Array, "k n"] | Float32[Array, "k n"]


def matmul(
    a: Float16[Array, "batch k"], codes: Codes, exponent: Int32[Array, " n"]
) -> Float32[Array, "batch n"]:
    """Activations times e4m3 weights, with a scale 2^exponent per column."""
    return MATMUL.bind(a, codes, exponent)


def decode(codes: Shaped[Array, "k n"], exponent: Int32[Array, " n"]) -> Float32[Array, "k n"]:
    """Weights as f32: e4m3 codes times 2^exponent per column; f32 weights as they are."""
    if codes.dtype != jnp.uint8:
        return codes
    values = jax.lax.bitcast_convert_type(codes, jnp.float8_e4m3fn).astype(jnp.float32)
    return values * pow2(exponent).astype(jnp.float32)


def _shape(a: ShapedArray, codes: ShapedArray, exponent: ShapedArray) -> Results:
    """Of a [batch, k], codes [k, n], exponent [n]: [batch, n]. F32 weights are for the plain step only."""
    check_operand("matmul", "a", a, 2, F16)
    check_operand("matmul", "codes", codes, 2, U8, F32)
    check_operand("matmul", "exponent", exponent, 1, I32)
    check_same("matmul", "k of a and of codes", a.shape[1], codes.shape[0])
    check_same("matmul", "n of codes and of exponent", codes.shape[1], exponent.shape[0])
    return (ShapedArray((a.shape[0], codes.shape[1]), F32),)


def _flops(a: ShapedArray, codes: ShapedArray, exponent: ShapedArray) -> int:
    return 2 * a.shape[0] * math.prod(codes.shape)


def _contract(a: Array, codes: Array, exponent: Array) -> Array:
    if codes.dtype != jnp.uint8:
        raise TypeError(
            f"matmul: weights are {codes.dtype}, the contract takes e4m3 codes (uint8). Use contract.plain."
        )
    return numerics.matmul(a, codes, exponent)


def _plain(
    a: Float32[Array, "batch k"], codes: Shaped[Array, "k n"], exponent: Int32[Array, " n"]
) -> Float32[Array, "batch n"]:
    return a @ decode(codes, exponent)


MATMUL = define(name="matmul", shape=_shape, flops=_flops, contract=_contract, plain=_plain)
