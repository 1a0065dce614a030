"""Decode attention over a KV cache under the contract, in blocks of tokens that stay in cache."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float16, Int32, UInt8

from models import numerics
from models.numerics import Wide

Cache = Float16[Array, "batch tokens kv_heads head_dim"] | UInt8[Array, "batch tokens kv_heads head_dim"]


def append(
    cache: Cache, new: Float16[Array, "batch kv_heads head_dim"], position: Int32[Array, " batch"]
) -> Cache:
    """The cache with one token per sequence written at its position, in the cache's own format."""
    token = numerics.rn8(new.astype(jnp.float32)) if cache.dtype == jnp.uint8 else new
    return cache.at[jnp.arange(cache.shape[0]), position].set(token)


def decode_attention(
    q: Float16[Array, "batch heads head_dim"],
    k: Float16[Array, "batch kv_heads head_dim"],
    v: Float16[Array, "batch kv_heads head_dim"],
    k_cache: Cache,
    v_cache: Cache,
    position: Int32[Array, " batch"],
    *,
    fraction_bits: int,
) -> tuple[Float16[Array, "batch lanes"], Cache, Cache]:
    """Append k and v at the position, then attend to all tokens up to it."""
    if k_cache.dtype not in (jnp.float16, jnp.uint8):
        raise TypeError(
            f"attention: cache is {k_cache.dtype}, the contract takes fp16 or e4m3 codes (uint8)."
        )
    k_cache, v_cache = append(k_cache, k, position), append(v_cache, v, position)
    batch, tokens, kv_heads, head_dim = k_cache.shape
    step = _block(tokens, kv_heads * head_dim)
    firsts = jnp.arange(0, tokens, step, dtype=jnp.int32)
    grouped = q.reshape(batch, kv_heads, -1, head_dim)

    def block(cache: Array, row: Array, first: Array) -> Array:
        at = (row, first, jnp.int32(0), jnp.int32(0))
        part = lax.dynamic_slice(cache, at, (1, step, kv_heads, head_dim))
        return jnp.swapaxes(part[0], 0, 1)

    def attend(row: Array) -> Array:
        def scores(first: Array) -> Array:
            mask = first + jnp.arange(step, dtype=jnp.int32) <= position[row]
            mask = jnp.broadcast_to(mask, (kv_heads, step))
            return numerics.attention_scores(grouped[row], block(k_cache, row, first), mask)

        every = lax.map(scores, firsts)  # [blocks, kv_heads, group, step]
        largest = jnp.broadcast_to(jnp.max(every, axis=(0, 3)), every.shape[:-1])
        weights, sums = numerics.softmax_weights(every, largest, fraction_bits)

        def add(total: Wide, part: tuple[Array, Array]) -> tuple[Wide, None]:
            values = numerics.attention_values(part[1], block(v_cache, row, part[0]))
            return Wide(total.high + values.high, total.low + values.low), None

        zero = jnp.zeros(grouped.shape[1:], jnp.float64)
        total, _ = lax.scan(add, Wide(zero, zero), (firsts, weights))
        return numerics.attention_out(total, jnp.sum(sums, axis=0)).reshape(-1)

    return lax.map(attend, jnp.arange(batch, dtype=jnp.int32)), k_cache, v_cache


def _block(tokens: int, lanes: int) -> int:
    """Tokens per block: the largest divisor of the context whose keys, split in two f64, fit a block."""
    most = max(numerics.BLOCK_BYTES // (lanes * 16), 1)
    return max(size for size in range(1, min(tokens, most) + 1) if tokens % size == 0)
