"""Sigmoid, softplus, tanh and the soft cap. Source: facts/contract2.md sections 1 and 6."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32

from models.contract.formats import F32, F64, I64, pow2, rn32
from models.contract.functions.exponential import LOWEST, expe, expm, shift
from models.contract.functions.quadratic import quad
from models.contract.numerics import expq


def sigmoid(x: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """SIGMOID: 1 / (1 + e^-x), 0.90 ulp."""
    e = expe(-jnp.abs(x))
    return rn32(jnp.where(x >= 0, 1.0, e) / (1.0 + e))


def softplus(x: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """SOFTPLUS: ln(1 + e^x), 1.03 ulp; max(x, 0) beyond 87."""
    m, n = expm(-jnp.abs(x), LOWEST)
    u = jnp.minimum(jnp.where(n <= 31, shift(m, n), 0), 2**30 - 1)
    log = (((m + 16) >> 5) * ((quad("log1", u, 21) + 2) >> 2)).astype(F64) * pow2(-n - 53)
    near = rn32(jnp.where(x > 0, x.astype(F64) + log, log))
    return jnp.where(jnp.abs(x) > -LOWEST, jnp.maximum(x, F32(0)), near)


def tanh(x: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """TANH, 0.56 ulp, which never falls as x rises."""
    size = jnp.abs(x)
    near = size < 1
    r = quad("tanh", jnp.round(jnp.where(near, size, F32(0)).astype(F64) * 2.0**30).astype(I64), 21)
    small = rn32(x.astype(F64) * r.astype(F64) * 2.0**-30)
    e = expq(-2 * jnp.minimum(size, F32(20)), 28)
    large = rn32(((1 << 28) - e).astype(F64) / ((1 << 28) + e).astype(F64))
    return jnp.where(near, small, jnp.where(x < 0, -large, large))


def softcap(s: Float32[Array, "*shape"], cap: float) -> Float32[Array, "*shape"]:
    """SOFTCAP: cap tanh(s / cap), the division by the inverse in f64; cap is an f32 value."""
    inner = tanh(rn32(s.astype(F64) * F64(1 / cap)))
    return rn32(F64(cap) * inner.astype(F64))
