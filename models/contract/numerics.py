"""The numerics contract, mode A: every reduction is an exact sum held in f64 and rounded once.

Source: facts/numerics.md section 2. In short: weights are e4m3 bytes with a power-of-two scale, activations
and KV fp16, residuals and logits f32. The formats and roundings of `models/contract/formats.py` are part of
this module's vocabulary. Every function may be mapped over leading axes (`jax.vmap`): no bit changes.
"""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Float16, Float32, Float64, Int, Int32, Int64, UInt8

from models.contract.formats import (
    F32,
    F64,
    I64,
    Wide,
    decode_e4m3,
    decode_small,
    flush32,
    halves,
    odd64,
    plus0,
    pow2,
    rn16,
    rn32,
    two_sum,
)
from models.contract.formats import NumericsError as NumericsError
from models.contract.formats import add32 as add32
from models.contract.formats import guard as guard
from models.contract.formats import rn8 as rn8
from models.contract.functions.erf import gelu_erf
from models.contract.settings import enable as enable

MASKED = -3e38  # the score of a token that must not be attended to
EXACT_K = 37_449  # fp16 half (20 bits) x e4m3 (17.81 bits): exact in one f64 sum up to here
CARRIED_K = 32_768  # input rows per chunk beyond that
BLOCK_BYTES = 4 << 20  # decoded weights held at a time: they stay in cache (facts: sections 1.2 and 6)
_LOG2E = 387_270_501 / 16  # 2^24 log2(e), of which the contract keeps 29 bits
EXPQ_TABLE = np.array([round(2**30 * 2 ** (-i / 1024)) for i in range(1024)], np.int32)
_GELU_1 = float(np.float32(2 * math.sqrt(2 / math.pi)))
_GELU_3 = float(np.float32(2 * math.sqrt(2 / math.pi) * 0.044715))


# Matrix product (section 2.3)


def carry(part: Wide) -> Wide:
    """The same value with all multiples of 1/2 in `high`: up to 2^20 such parts add exactly at any K."""
    top = jnp.floor(part.high * 2) * 0.5
    low = part.low + (part.high - top)
    over = jnp.floor(low * 2) * 0.5
    return Wide(top + over, low - over)


def wide(a: Float16[Array, "batch k"], codes: UInt8[Array, "k n"]) -> Wide:
    """The product before its rounding, [batch, n]; beyond `EXACT_K` the chunks are carried, then added."""
    k = codes.shape[0]
    rows = jnp.concatenate(halves(a)) * 256
    if k <= EXACT_K:
        return _wide(rows, codes)
    starts = range(0, k, CARRIED_K)
    parts = [carry(_wide(rows[:, i : i + CARRIED_K], codes[i : i + CARRIED_K])) for i in starts]
    return Wide(sum((p.high for p in parts), F64(0)), sum((p.low for p in parts), F64(0)))


def _wide(rows: Float64[Array, "rows k"], codes: UInt8[Array, "k n"]) -> Wide:
    return Wide(*jnp.split(plus0(_dot(rows, codes)), 2))


def _dot(rows: Float64[Array, "rows k"], codes: UInt8[Array, "k n"]) -> Float64[Array, "rows n"]:
    """Exact f64 product with 2^-8 of the weights, decoded block by block so that a block stays in cache."""
    k, n = codes.shape
    if k * n * 8 <= BLOCK_BYTES:
        return rows @ decode_small(codes)
    return _dot_by_rows(rows, codes) if n <= k else _dot_by_columns(rows, codes)


def _dot_by_rows(rows: Float64[Array, "rows k"], codes: UInt8[Array, "k n"]) -> Float64[Array, "rows n"]:
    k, n = codes.shape
    step = max(BLOCK_BYTES // (8 * n), 16)
    done = k // step * step

    def add(total: Array, first: Array) -> tuple[Array, None]:
        block = decode_small(lax.dynamic_slice_in_dim(codes, first, step, 0))
        return total + lax.dynamic_slice_in_dim(rows, first, step, 1) @ block, None

    total, _ = lax.scan(add, jnp.zeros((rows.shape[0], n), F64), jnp.arange(0, done, step))
    return total if done == k else total + rows[:, done:] @ decode_small(codes[done:])


def _dot_by_columns(rows: Float64[Array, "rows k"], codes: UInt8[Array, "k n"]) -> Float64[Array, "rows n"]:
    k, n = codes.shape
    step = min(max(BLOCK_BYTES // (8 * k), 64), 128)
    done = n // step * step

    def block(first: Array) -> Array:
        return rows @ decode_small(lax.dynamic_slice_in_dim(codes, first, step, 1))

    blocks = jnp.moveaxis(lax.map(block, jnp.arange(0, done, step)), 0, 1).reshape(-1, done)
    if done == n:
        return blocks
    return jnp.concatenate([blocks, rows @ decode_small(codes[:, done:])], axis=1)


def round_wide(part: Wide, exponent: Int32[Array, "*n"]) -> Float32[Array, "*batch n"]:
    """Wide sums times 2^exponent (per column or for all), rounded once to f32."""
    return scale_wide(part, pow2(exponent))


def scale_wide(part: Wide, scale: Float64[Array, "*n"]) -> Float32[Array, "*batch n"]:
    """Wide sums times a scale, f32 in value, by one f64 product that is rounded to f32.

    Source: facts/contract2.md section 4, COLSCALE. A power of two gives the bits of `round_wide`.
    """
    return rn32(odd64(part.high, part.low) * scale)


def matmul(
    a: Float16[Array, "batch k"], codes: UInt8[Array, "k n"], exponent: Int32[Array, "*n"]
) -> Float32[Array, "batch n"]:
    """fp16 activations times e4m3 weights, summed exactly, scaled by 2^exponent per column, rounded once."""
    return round_wide(wide(a, codes), exponent)


# Elementwise (sections 2.4 and 2.5)


def expq(t: Float32[Array, "*shape"], p: int) -> Int64[Array, "*shape"]:
    """About 2^p e^t as an integer, for t <= 0: an integer algorithm, error at most 0.52 units at p = 20."""
    z = jnp.round(jnp.maximum(t, -40.0).astype(F64) * _LOG2E).astype(I64)
    n, f = -z >> 24, -z & 0xFFFFFF
    d = ((f & 0x3FFF) * 744_261_118) >> 24
    c = 2**30 - d + ((d * d) >> 31)
    m = (jnp.asarray(EXPQ_TABLE)[f >> 14].astype(I64) * c) >> 30
    h = n + 30 - p
    rounded = (m + (1 << jnp.clip(h - 1, 0, 31))) >> jnp.clip(h, 0, 32)
    return jnp.where(h > 31, 0, jnp.where(h == 0, m, rounded))


def rms_norm(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"], eps: float
) -> Float16[Array, "*batch width"]:
    """The vector over its root mean square, times the gain: `rms_apply` of `rms_stat`."""
    return rms_apply(x, rms_stat(x, x.shape[-1], eps)[..., None], gain)


def rms_stat(x: Float32[Array, "*batch lanes"], width: int, eps: float) -> Float32[Array, "*batch"]:
    """1 / rms over the last axis, whose `width` real lanes may be padded with zeros; 0 if all are 0."""
    top = jnp.max(jnp.abs(x), axis=-1)
    e = (lax.bitcast_convert_type(top, jnp.int32) >> 23) - 126
    m = jnp.round(x.astype(F64) * pow2(19 - e)[..., None])
    mean = jnp.sum(m * m, axis=-1) * (1.0 / width)
    v = rn32(mean * pow2(2 * (e - 19))) + F32(eps)
    return jnp.where(top == 0, F32(0), rn32(1.0 / jnp.sqrt(v.astype(F64))))


def rms_apply(
    x: Float32[Array, "*batch width"], r: Float32[Array, "*stat"], gain: Float32[Array, "*gain"]
) -> Float16[Array, "*batch width"]:
    """(x r) gain, two f32 products, rounded to fp16; r and gain broadcast against x."""
    return rn16(flush32(flush32(x * r) * gain))


def rope(
    x: Float[Array, "*batch head_dim"], angles: Int32[Array, "*angles 2 pairs"]
) -> Float32[Array, "*batch head_dim"]:
    """Half-split rotary embedding; angles are cos and sin in Q1.15, broadcast against x's leading axes."""
    a, b = jnp.split(x.astype(F64), 2, axis=-1)
    c, s = (angles[..., i, :].astype(F64) * 2.0**-15 for i in range(2))
    return jnp.concatenate([rn32(a * c - b * s), rn32(b * c + a * s)], axis=-1)


def sigmoid_times(g: Float32[Array, "*shape"], w: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The product g sigmoid(w), with e = expq(-|w|, 28): g (2^28 or e) / (2^28 + e), the product exact."""
    e = expq(-jnp.abs(w), 28)
    top = jnp.where(w >= 0, 1 << 28, e).astype(F64)
    return rn32(g.astype(F64) * top / ((1 << 28) + e).astype(F64))


def silu(g: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The product g sigmoid(g)."""
    return sigmoid_times(g, g)


def gelu(g: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Gelu in its tanh form, which is g sigmoid(w) with w = 2 sqrt(2/pi) (g + 0.044715 g^3).

    x = clip(g, -256, 256); s = rn32(x x); q = rn32(RN64(C1 + C3 s)); w = rn32(x q); then as silu. C1 and C3
    are the f32 next to 2 sqrt(2/pi) and 0.044715 times it; products of two f32 are exact in f64.
    """
    x = jnp.clip(g, -256.0, 256.0).astype(F64)
    s = rn32(x * x).astype(F64)
    q = rn32(s * _GELU_3 + _GELU_1).astype(F64)
    return sigmoid_times(g, rn32(x * q))


def relu(g: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The value, or +0 where it is below 0: times the value itself, relu squared (contract2.md section 7)."""
    return jnp.where(g > 0, g, F32(0))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_erf": gelu_erf,
    "relu": relu,
}
ALONE: dict[str, Callable[[Array], Array]] = {"gelu_erf_alone": gelu_erf}
"""Of a value by itself: what stands beside it, the value again, takes no part."""


def glu(gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"], kind: str) -> Float16[Array, "*shape"]:
    """activation(gate) up, the product rounded to f32, then to fp16; or of the gate alone."""
    if kind in ALONE:
        return rn16(ALONE[kind](gate))
    return rn16(rn32(ACTIVATIONS[kind](gate).astype(F64) * up.astype(F64)))


def argmax(x: Float32[Array, "*batch n"]) -> Int32[Array, "*batch"]:
    """Index of the largest value, the lowest of equals."""
    return jnp.argmax(x, axis=-1).astype(jnp.int32)


# Attention over a KV cache (section 2.5)


def inverse_root(n: int) -> float:
    """RN64(n^-1/2), correctly rounded."""
    with localcontext() as context:
        context.prec = 60
        return float(1 / Decimal(n).sqrt())


def _contract(a: Array, b: Array) -> Array:
    """The exact f64 product over the last axis of both: [..., m, c] x [..., n, c] -> [..., m, n]."""
    return a @ jnp.swapaxes(b, -1, -2)


def attention_scores(
    q: Float16[Array, "*batch group head_dim"],
    k: Float16[Array, "*batch tokens head_dim"] | UInt8[Array, "*batch tokens head_dim"],
    mask: Bool[Array, "*batch tokens"] | None = None,
    exponent: int = 0,
    scale: float = 0.0,
) -> Float32[Array, "*batch group tokens"]:
    """Products q k / sqrt(head_dim), exact until the scale; tokens where mask is False score `MASKED`.

    scale: in place of 1 / sqrt(head_dim) where it is not 0.

    Keys in fp16 give four exact sums, keys in e4m3 (value code 2^exponent) two.
    """
    high, low = halves(q)
    if k.dtype == jnp.uint8:
        keys = decode_e4m3(k)
        exact = odd64(_contract(high, keys), _contract(low, keys))
    else:
        k_high, k_low = halves(k)
        middle = _contract(high, k_low) + _contract(low, k_high)
        s, e = two_sum(_contract(high, k_high), middle)
        exact = odd64(s, e + _contract(low, k_low))
    scores = rn32(exact * (scale or inverse_root(q.shape[-1])) * 2.0**exponent)
    return scores if mask is None else jnp.where(mask[..., None, :], scores, F32(MASKED))


def softmax_weights(
    scores: Float32[Array, "*batch tokens"], largest: Float32[Array, "*batch"], p: int
) -> tuple[Int64[Array, "*batch tokens"], Int64[Array, "*batch"]]:
    """Integer weights expq(score - largest, p) and their sum; sums of parts of the context simply add."""
    weights = expq(scores - largest[..., None], p)
    return weights, jnp.sum(weights, axis=-1)


def attention_values(
    weights: Int[Array, "*batch group tokens"],
    v: Float16[Array, "*batch tokens head_dim"] | UInt8[Array, "*batch tokens head_dim"],
) -> Wide:
    """Weighted sum of values [..., group, head_dim] before its rounding; e4m3 values have no low part."""
    w = weights.astype(F64)
    if v.dtype == jnp.uint8:
        high = w @ decode_e4m3(v)
        return Wide(plus0(high), jnp.zeros_like(high))
    high, low = halves(v)
    return Wide(plus0(w @ high), plus0(w @ low))


def attention_out(
    part: Wide, total: Int64[Array, "*batch group"], exponent: int = 0
) -> Float16[Array, "*batch group head_dim"]:
    """Weighted sum over the sum of weights, rounded to f32, then fp16; e4m3 values are code 2^exponent."""
    value = odd64(part.high, part.low) / total[..., None].astype(F64)
    return rn16(rn32(value * 2.0**exponent))
