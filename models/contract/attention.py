"""Attention over a KV cache under the contract: block by block, and the fixed tree over the blocks."""

from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float16, Float32, Int32, UInt8

from models.contract import block_attention, numerics
from models.contract.block_attention import Attended
from models.contract.functions.curves import softcap

Cache = (
    Float16[Array, "sequences tokens kv_heads head_dim"] | UInt8[Array, "sequences tokens kv_heads head_dim"]
)
PIECE_ROWS = 64  # rows of one sequence that attend at a time: bounds the scores that are held


class AttentionForm(TypedDict, total=False):
    """Which tokens a row sees and how they are scored, as in `ops.attention`; left out: 0 or False."""

    window: int
    span: int
    scale: float
    cap: float
    whole: bool


def append(
    cache: Cache, new: Float16[Array, "rows kv_heads head_dim"], position: Int32[Array, " rows"]
) -> Cache:
    """The cache with every row's token at its position, in the cache's own format.

    Each sequence of the cache gets an equal share of the rows, in order.
    """
    token = numerics.rn8(new.astype(jnp.float32)) if cache.dtype == jnp.uint8 else new
    sequence = jnp.arange(len(new)) // (len(new) // len(cache))
    return cache.at[sequence, position].set(token)


def attention(
    q: Float16[Array, "rows heads head_dim"],
    k: Float16[Array, "rows kv_heads head_dim"],
    v: Float16[Array, "rows kv_heads head_dim"],
    k_cache: Cache,
    v_cache: Cache,
    position: Int32[Array, " rows"],
    sink: Float32[Array, " heads"] | None = None,
    *,
    block: int,
    **asked: Unpack[AttentionForm],
) -> tuple[Float16[Array, "rows lanes"], Cache, Cache]:
    """Append k and v of all rows at their positions, then each row attends to the tokens up to its own.

    Decode has a row per sequence, a chunk of a prompt many rows of one: row i is of sequence
    i // (rows / sequences). A row of a chunk sees the tokens that the rows before it append.
    block: tokens of a block, a constant of the model; blocks begin at positions 0, block, 2 block, ...
    The others as in `ops.attention`.
    """
    window, span = asked.get("window", 0), asked.get("span", 0)
    scale, cap = asked.get("scale", 0.0), asked.get("cap", 0.0)
    if k_cache.dtype not in (jnp.float16, jnp.uint8):
        raise TypeError(
            f"attention: cache is {k_cache.dtype}, the contract takes fp16 or e4m3 codes (uint8)."
        )
    k_cache, v_cache = append(k_cache, k, position), append(v_cache, v, position)
    sequences, tokens, kv_heads, head_dim = k_cache.shape
    share, bits = len(q) // sequences, block_attention.weight_bits(block)
    size = max(n for n in range(1, min(share, PIECE_ROWS) + 1) if share % n == 0)
    group = q.shape[1] // kv_heads
    pieces = q.reshape(-1, size, kv_heads, group, head_dim)
    last = position.reshape(sequences, share)
    last = jnp.broadcast_to(last.max(axis=1, keepdims=True), last.shape) if asked.get("whole") else last
    last = last.reshape(-1, size)

    def attend(piece: Array) -> Array:
        sequence = piece * size // share
        queries = jnp.swapaxes(pieces[piece], 0, 1).reshape(kv_heads, size * group, head_dim)

        def leaf(first: Array, count: int) -> Attended:
            at = (sequence, first, jnp.int32(0), jnp.int32(0))
            keys, values = (
                jnp.swapaxes(lax.dynamic_slice(cache, at, (1, count, kv_heads, head_dim))[0], 0, 1)
                for cache in (k_cache, v_cache)
            )
            tokens = first + jnp.arange(count, dtype=jnp.int32)
            seen = block_attention.seen(last[piece], tokens, window=window, chunk=span)
            seen = jnp.broadcast_to(jnp.repeat(seen, group, axis=0), (kv_heads, size * group, count))
            scores = numerics.attention_scores(queries, keys, scale=scale)
            scores = softcap(scores, cap) if cap else scores
            return block_attention.leaf(block_attention.exponents(scores), seen, values, bits)

        whole, rest = divmod(tokens, block)
        firsts = jnp.arange(whole, dtype=jnp.int32) * block
        parts = [lax.map(lambda first: leaf(first, block), firsts)] if whole else []
        if rest:
            parts.append(jax.tree.map(lambda x: x[None], leaf(jnp.int32(whole * block), rest)))
        leaves = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
        node = block_attention.root(leaves)
        if sink is not None:
            logits = jnp.tile(sink.reshape(kv_heads, group), (1, size))
            node = block_attention.with_sink(node, logits, bits)
        out = block_attention.out(node)
        return jnp.swapaxes(out.reshape(kv_heads, size, group * head_dim), 0, 1).reshape(size, -1)

    out = lax.map(attend, jnp.arange(len(pieces), dtype=jnp.int32))
    return out.reshape(len(q), -1), k_cache, v_cache
