"""`attention`: append keys and values to the caches, then attend to the tokens up to the row's own.

Which tokens, and how their scores are made, is said by attributes; one not stated is not in the jaxpr.
"""

import math
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float, Float16, Float32, Int32, UInt8

from models.contract import attention as kv_attention
from models.contract import block_attention
from models.contract.attention import AttentionForm
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
    sink: Float32[Array, " heads"] | None = None,
    *,
    block: int = BLOCK,
    **asked: Unpack[AttentionForm],
) -> tuple[Float16[Array, "batch lanes"], Cache, Cache]:
    """Append k and v to the caches at the position, then attend to the tokens up to it.

    The sequences of the caches share the batch rows in equal runs: one row each to decode, a chunk of a
    prompt where there are more rows than sequences. Positions of one sequence ascend.
    block: tokens whose sums are exact, a constant of the model that decides bits (facts/contract2.md 6).
    window: the last tokens that are seen, the row's own among them; span: only tokens of its own run of so
    many, counted from 0; 0: all. scale: of the products, 0: 1 / sqrt(head_dim). cap: scores become
    cap tanh(score / cap); 0: they stay. whole: each row sees what all rows of its sequence see, as in an
    encoder, whose rows are all of a sequence; positions may stay at its last. sink: a score of each head
    that takes weight and gives nothing.
    """
    if unknown := sorted(asked.keys() - AttentionForm.__annotations__.keys()):
        raise TypeError(
            f"attention: {unknown[0]} is no attribute. It has {', '.join(AttentionForm.__annotations__)}."
        )
    said = {name: value for name in AttentionForm.__annotations__ if (value := asked.get(name))}
    operands = (q, k, v, k_cache, v_cache, position, *(() if sink is None else (sink,)))
    return ATTENTION.bind(*operands, block=block, **said)


def reach(attributes: Mapping[str, Any]) -> int:
    """The most tokens that a row sees, by the attributes of an attention; 0: all."""
    return min((n for n in (attributes.get("window", 0), attributes.get("span", 0)) if n), default=0)


def _shape(
    q: ShapedArray,
    k: ShapedArray,
    v: ShapedArray,
    k_cache: ShapedArray,
    v_cache: ShapedArray,
    position: ShapedArray,
    sink: ShapedArray | None = None,
    *,
    block: int,
    **said: float | int,
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
    for name in ("window", "span"):
        if (tokens := said.get(name, 1)) < 1:
            raise ValueError(f"attention: {name} is {tokens}, it takes at least 1 token.")
    for name in ("scale", "cap"):
        if not 0 < (value := said.get(name, 1.0)) < math.inf:
            raise ValueError(f"attention: {name} is {value}, it takes a finite number above 0.")
    if said.get("whole") and reach(said):
        raise ValueError(f"attention: whole sequences are seen, and {reach(said)} tokens. Leave out one.")
    if sink is not None:
        check_operand("attention", "sink", sink, 1, F32)
        check_same("attention", "heads of q and of sink", heads, sink.shape[0])
    caches = ShapedArray(k_cache.shape, k_cache.dtype), ShapedArray(v_cache.shape, v_cache.dtype)
    return ShapedArray((batch, heads * head_dim), F16), *caches


def _flops(
    q: ShapedArray, k: ShapedArray, v: ShapedArray, cache: ShapedArray, *rest: Any, **said: Any
) -> int:
    return 4 * math.prod(q.shape) * min(cache.shape[1], reach(said) or cache.shape[1])


def _bytes(
    q: ShapedArray,
    k: ShapedArray,
    v: ShapedArray,
    k_cache: ShapedArray,
    v_cache: ShapedArray,
    *rest: Any,
    **said: Any,
) -> int:
    tokens = (math.prod(k.shape) + math.prod(v.shape)) * k_cache.dtype.itemsize
    seen = min(k_cache.shape[1], reach(said) or k_cache.shape[1])
    cached = bytes_of(k_cache, v_cache) // k_cache.shape[1] * seen
    return 2 * bytes_of(q) + bytes_of(k, v, *rest[1:]) + cached + tokens


def _plain(
    q: Float32[Array, "batch heads head_dim"],
    k: Float32[Array, "batch kv_heads head_dim"],
    v: Float32[Array, "batch kv_heads head_dim"],
    k_cache: PlainCache,
    v_cache: PlainCache,
    position: Int32[Array, " batch"],
    sink: Float32[Array, " heads"] | None = None,
    *,
    block: int,
    **asked: Unpack[AttentionForm],
) -> tuple[Float32[Array, "batch lanes"], PlainCache, PlainCache]:
    """Append, then softmax attention to tokens up to the position; rows in equal runs per sequence."""
    sequences, tokens, kv_heads, head_dim = k_cache.shape
    share = len(q) // sequences
    row = jnp.arange(len(q)) // share
    k_cache, v_cache = k_cache.at[row, position].set(k), v_cache.at[row, position].set(v)
    grouped = q.reshape(sequences, share, kv_heads, -1, head_dim)
    scores = jnp.einsum("srhgd,sthd->srhgt", grouped, k_cache) * jnp.float32(
        asked.get("scale") or head_dim**-0.5
    )
    if cap := asked.get("cap"):
        scores = cap * jnp.tanh(scores / cap)
    last = position.reshape(sequences, share)
    last = jnp.broadcast_to(last.max(axis=1, keepdims=True), last.shape) if asked.get("whole") else last
    window, span = asked.get("window", 0), asked.get("span", 0)
    seen = block_attention.seen(last, jnp.arange(tokens, dtype=jnp.int32), window=window, chunk=span)
    scores = jnp.where(seen[:, :, None, None], scores, -jnp.inf)
    if sink is not None:
        logits = jnp.broadcast_to(sink.reshape(kv_heads, -1, 1), (*scores.shape[:-1], 1))
        scores = jnp.concatenate([scores, logits], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1)[..., :tokens]
    return jnp.einsum("srhgt,sthd->srhgd", weights, v_cache).reshape(len(q), -1), k_cache, v_cache


ATTENTION = define(
    name="attention",
    shape=_shape,
    flops=_flops,
    bytes=_bytes,
    contract=kv_attention.attention,
    plain=_plain,
)
