"""`attention`: append keys and values to the caches, then attend to all tokens up to the row's own."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float, Float16, Float32, Int32, UInt8

from models.contract import attention as kv_attention
from models.contract.op import F16, F32, I32, U8, Results, bytes_of, check_operand, check_same, define
from models.version import BLOCK

Cache = (
    Float[Array, "sequences tokens kv_heads head_dim"] | UInt8[Array, "sequences tokens kv_heads head_dim"]
)
PlainCache = Float32[Array, "sequences tokens kv_heads head_dim"]
LARGEST_BLOCK = 1 << 13  # beyond it a weight has fewer than 20 bits


def attention(
    q: Float16[Array, "batch heads head_dim"],
    k: Float16[Array, "batch kv_heads head_dim"],
    v: Float16[Array, "batch kv_heads head_dim"],
    k_cache: Cache,
    v_cache: Cache,
    position: Int32[Array, " batch"],
    *,
    block: int = BLOCK,
) -> tuple[Float16[Array, "batch lanes"], Cache, Cache]:
    """Append k and v to the caches at the position, then attend to all tokens up to it.

    The sequences of the caches share the batch rows in equal runs: one row each to decode, a chunk of a
    prompt where there are more rows than sequences. Positions of one sequence ascend.
    block: tokens whose sums are exact, a constant of the model that decides bits (facts/contract2.md 6).
    """
    return ATTENTION.bind(q, k, v, k_cache, v_cache, position, block=block)


def _shape(
    q: ShapedArray,
    k: ShapedArray,
    v: ShapedArray,
    k_cache: ShapedArray,
    v_cache: ShapedArray,
    position: ShapedArray,
    *,
    block: int,
) -> Results:
    """Of q [rows, heads, d], k, v [rows, kv, d], caches [sequences, tokens, kv, d]: [rows, lanes], caches.

    Every sequence of the caches gets an equal run of the rows. F32 caches are for the plain step only.
    """
    for name, array in (("q", q), ("k", k), ("v", v)):
        check_operand("attention", name, array, 3, F16)
    for name, array in (("k_cache", k_cache), ("v_cache", v_cache)):
        check_operand("attention", name, array, 4, F16, U8, F32)
    check_operand("attention", "position", position, 1, I32)
    batch, heads, head_dim = q.shape
    sequences, _, kv_heads, _ = k_cache.shape
    stored = (k_cache.shape, k_cache.dtype), (v_cache.shape, v_cache.dtype)
    check_same("attention", "shapes of k and v", k.shape, v.shape)
    check_same("attention", "caches of k and v", *stored)
    check_same("attention", "batch and head_dim of q and of k", (batch, head_dim), (k.shape[0], k.shape[2]))
    check_same("attention", "k and one token of its cache", k.shape[1:], k_cache.shape[2:])
    check_same("attention", "batch of q and of position", batch, position.shape[0])
    if sequences < 1 or batch % sequences:
        raise ValueError(
            f"attention: {batch} rows are no equal share for {sequences} sequences of the cache."
        )
    if heads % kv_heads:
        raise ValueError(f"attention: {heads} heads are no multiple of {kv_heads} kv heads.")
    if not 1 <= block <= LARGEST_BLOCK:
        raise ValueError(f"attention: block is {block}, it takes 1 to {LARGEST_BLOCK} tokens.")
    caches = ShapedArray(k_cache.shape, k_cache.dtype), ShapedArray(v_cache.shape, v_cache.dtype)
    return ShapedArray((batch, heads * head_dim), F16), *caches


def _flops(q: ShapedArray, k: ShapedArray, v: ShapedArray, cache: ShapedArray, *rest: Any, **_: Any) -> int:
    return 4 * math.prod(q.shape) * cache.shape[1]


def _bytes(
    q: ShapedArray,
    k: ShapedArray,
    v: ShapedArray,
    k_cache: ShapedArray,
    v_cache: ShapedArray,
    *rest: Any,
    **_: Any,
) -> int:
    tokens = (math.prod(k.shape) + math.prod(v.shape)) * k_cache.dtype.itemsize
    return 2 * bytes_of(q) + bytes_of(k, v, k_cache, v_cache) + tokens


def _plain(
    q: Float32[Array, "batch heads head_dim"],
    k: Float32[Array, "batch kv_heads head_dim"],
    v: Float32[Array, "batch kv_heads head_dim"],
    k_cache: PlainCache,
    v_cache: PlainCache,
    position: Int32[Array, " batch"],
    *,
    block: int,
) -> tuple[Float32[Array, "batch lanes"], PlainCache, PlainCache]:
    """Append, then softmax attention to all tokens up to the position; rows in equal runs per sequence."""
    sequences, tokens, kv_heads, head_dim = k_cache.shape
    share = len(q) // sequences
    row = jnp.arange(len(q)) // share
    k_cache, v_cache = k_cache.at[row, position].set(k), v_cache.at[row, position].set(v)
    grouped = q.reshape(sequences, share, kv_heads, -1, head_dim)
    scores = jnp.einsum("srhgd,sthd->srhgt", grouped, k_cache) * jnp.float32(head_dim**-0.5)
    seen = jnp.arange(tokens) <= position.reshape(sequences, share, 1)
    weights = jax.nn.softmax(jnp.where(seen[:, :, None, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("srhgt,sthd->srhgd", weights, v_cache).reshape(len(q), -1), k_cache, v_cache


ATTENTION = define(
    name="attention",
    shape=_shape,
    flops=_flops,
    bytes=_bytes,
    contract=kv_attention.attention,
    plain=_plain,
)
