"""Exponentials as integer algorithms: a mantissa of 30 bits from a table, and a shift.

Source: facts/contract2.md section 1 (EXPM, SHIFT, EXPE, EXP32), numerics.md section 2.4.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32, Float64, Int64

from models.contract.formats import F64, I64, pow2, rn32
from models.contract.numerics import EXPQ_TABLE

LOG2E = 387_270_501 / 16  # 2^24 log2(e), of which the contract keeps 29 bits
LOWEST = -87.0  # e to the power of less is 0


def mantissa(f: Int64[Array, "*shape"]) -> Int64[Array, "*shape"]:
    """About 2^(30 - f / 2^24), for 0 <= f < 2^24: at least 2^29, at most 2^30."""
    d = ((f & 0x3FFF) * 744_261_118) >> 24
    c = 2**30 - d + ((d * d) >> 31)
    return (jnp.asarray(EXPQ_TABLE)[f >> 14].astype(I64) * c) >> 30


def shift(m: Int64[Array, "*shape"], h: Int64[Array, "*#shape"]) -> Int64[Array, "*shape"]:
    """SHIFT: m / 2^h rounded half up, for h >= 0; 0 beyond 31."""
    rounded = (m + (1 << jnp.clip(h - 1, 0, 31))) >> jnp.clip(h, 0, 32)
    return jnp.where(h > 31, 0, jnp.where(h == 0, m, rounded))


def expm(t: Float32[Array, "*shape"], low: float) -> tuple[Int64[Array, "*shape"], Int64[Array, "*shape"]]:
    """EXPM: (m, n) of e^t ~ m 2^-(n + 30) for t <= 0, which is taken for `low` where it is less."""
    y = -jnp.round(jnp.maximum(t, low).astype(F64) * LOG2E).astype(I64)
    return mantissa(y & 0xFFFFFF), y >> 24


def expe(t: Float32[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """EXPE: e^t of t <= 0 in f64, of 30 bits; 0 below -87."""
    m, n = expm(t, LOWEST)
    return jnp.where(t < LOWEST, 0.0, m.astype(F64) * pow2(-n - 30))


def exp32(t: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """EXP32: e^t of t <= 0 in f32, 0.84 ulp."""
    return rn32(expe(t))
