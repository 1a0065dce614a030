"""Weights of bf16 or f32 as fp16 with an exponent per column: what `matmul16` takes, for routers.

A column of bf16 is exact as long as its entries spread no more than fp16's own range; what is not is counted.
Source: facts/contract2.md section 5, MATMUL16.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float16, Float32, Int32, Int64

from models.contract.formats import F64, I64, pow2, rn16, rn32

HIGHEST = 15  # binades of fp16 that the largest weight of a column fills


class Halves(NamedTuple):
    """Weights over 2^exponent, and how many of them changed their value: rounded, or lost below 2^-24."""

    weights: Float16[Array, "k n"]
    exponent: Int32[Array, " n"]
    changed: Int64[Array, ""]


def to_half(weights: Float32[Array, "k n"]) -> Halves:
    """Fp16 weights with e_n = E(max |w_n|) - 15, where 2^(E - 1) <= max < 2^E; 0 for a column of zeros."""
    top = jnp.max(jnp.abs(weights), axis=0)
    e = jnp.where(top == 0, 0, (lax.bitcast_convert_type(top, jnp.int32) >> 23) - 126 - HIGHEST)
    scaled = weights.astype(F64) * pow2(-e)
    half = rn16(rn32(scaled))
    return Halves(half, e.astype(jnp.int32), jnp.sum(half.astype(F64) != scaled, dtype=I64))
