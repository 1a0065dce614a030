"""Attention over a KV cache under the contract, in blocks of tokens that stay in cache."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float16, Int32, UInt8

from models.contract import numerics
from models.contract.numerics import Wide

Cache = (
    Float16[Array, "sequences tokens kv_heads head_dim"] | UInt8[Array, "sequences tokens kv_heads head_dim"]
)
PIECE_ROWS = 64  # rows of one sequence that attend at a time: bounds the scores that are held


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
    *,
    fraction_bits: int,
) -> tuple[Float16[Array, "rows lanes"], Cache, Cache]:
    """Append k and v of all rows at their positions, then each row attends to all tokens up to its own.

    Decode has a row per sequence, a chunk of a prompt many rows of one: row i is of sequence
    i // (rows / sequences). A row of a chunk sees the tokens that the rows before it append.
    """
    if k_cache.dtype not in (jnp.float16, jnp.uint8):
        raise TypeError(
            f"attention: cache is {k_cache.dtype}, the contract takes fp16 or e4m3 codes (uint8)."
        )
    k_cache, v_cache = append(k_cache, k, position), append(v_cache, v, position)
    sequences, tokens, kv_heads, head_dim = k_cache.shape
    step = _block(tokens, kv_heads * head_dim)
    firsts = jnp.arange(0, tokens, step, dtype=jnp.int32)
    share = len(q) // sequences
    size = max(n for n in range(1, min(share, PIECE_ROWS) + 1) if share % n == 0)
    group = q.shape[1] // kv_heads
    pieces = q.reshape(-1, size, kv_heads, group, head_dim)
    last = position.reshape(-1, size)

    def block(cache: Array, sequence: Array, first: Array) -> Array:
        at = (sequence, first, jnp.int32(0), jnp.int32(0))
        part = lax.dynamic_slice(cache, at, (1, step, kv_heads, head_dim))
        return jnp.swapaxes(part[0], 0, 1)

    def attend(piece: Array) -> Array:
        sequence = piece * size // share
        queries = jnp.swapaxes(pieces[piece], 0, 1).reshape(kv_heads, size * group, head_dim)

        def scores(first: Array) -> Array:
            found = numerics.attention_scores(queries, block(k_cache, sequence, first))
            seen = first + jnp.arange(step, dtype=jnp.int32) <= last[piece][:, None]
            seen = jnp.repeat(seen, group, axis=0)
            return jnp.where(seen, found, jnp.float32(numerics.MASKED))

        every = lax.map(scores, firsts)  # [blocks, kv_heads, size * group, step]
        largest = jnp.broadcast_to(jnp.max(every, axis=(0, 3)), every.shape[:-1])
        weights, sums = numerics.softmax_weights(every, largest, fraction_bits)

        def add(total: Wide, part: tuple[Array, Array]) -> tuple[Wide, None]:
            values = numerics.attention_values(part[1], block(v_cache, sequence, part[0]))
            return Wide(total.high + values.high, total.low + values.low), None

        zero = jnp.zeros(queries.shape, jnp.float64)
        total, _ = lax.scan(add, Wide(zero, zero), (firsts, weights))
        out = numerics.attention_out(total, jnp.sum(sums, axis=0))
        return jnp.swapaxes(out.reshape(kv_heads, size, group * head_dim), 0, 1).reshape(size, -1)

    out = lax.map(attend, jnp.arange(len(pieces), dtype=jnp.int32))
    return out.reshape(len(q), -1), k_cache, v_cache


def _block(tokens: int, lanes: int) -> int:
    """Tokens per block: the largest divisor of the context whose keys, split in two f64, fit a block."""
    most = max(numerics.BLOCK_BYTES // (lanes * 16), 1)
    return max(size for size in range(1, min(tokens, most) + 1) if tokens % size == 0)
