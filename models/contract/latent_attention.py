"""MLA in its latent form: queries go into the space of the cache, which holds one latent and one key a token.

The expanded form rounds keys and values to fp16 instead and has other bits: the latent one is the contract,
for prefill as well. Heads may lie anywhere; the context splits as blocks do. Source: facts/contract2.md 6.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float16, Float32, Float64, Int32, Int64, UInt8

from models.contract import block_attention as blocks
from models.contract.attention import PIECE_ROWS, append
from models.contract.block_attention import Attended
from models.contract.formats import clips16, rn16
from models.contract.numerics import matmul

TurnedCache = Float16[Array, "sequences tokens 1 turned"] | UInt8[Array, "sequences tokens 1 turned"]
LatentCache = Float16[Array, "sequences tokens 1 latent"] | UInt8[Array, "sequences tokens 1 latent"]


class Latent(NamedTuple):
    """Queries in the space of the cache, and how many of their values were clipped."""

    q: Float16[Array, "heads rows latent"]
    clips: Int64[Array, ""]


def into_latent(
    q: Float16[Array, "heads rows nope"],
    codes: UInt8[Array, "heads nope latent"],
    exponent: Int32[Array, " latent"],
) -> Latent:
    """The queries' part without position, by each head's Wuk."""
    found = jax.vmap(matmul, in_axes=(0, 0, None))(q, codes, exponent)
    return Latent(rn16(found), clips16(found))


def latent_scores(
    q_latent: Float16[Array, "*batch group latent"],
    q_rope: Float16[Array, "*batch group turned"],
    latent: Float16[Array, "*batch tokens latent"] | UInt8[Array, "*batch tokens latent"],
    k_rope: Float16[Array, "*batch tokens turned"] | UInt8[Array, "*batch tokens turned"],
    sigma: float | Float64[Array, ""],
) -> Float32[Array, "*batch group tokens"]:
    """Scores over both parts in one exact sum: latent and turned lanes together at most 8192."""
    q = jnp.concatenate([q_latent, q_rope], axis=-1)
    return blocks.scores(q, jnp.concatenate([latent, k_rope], axis=-1), sigma)


def out_of_latent(
    o: Float16[Array, "heads rows latent"],
    codes: UInt8[Array, "heads latent lanes"],
    exponent: Int32[Array, " lanes"],
) -> Float16[Array, "heads rows lanes"]:
    """The weighted mean of the latents as values, by each head's Wuv."""
    return rn16(jax.vmap(matmul, in_axes=(0, 0, None))(o, codes, exponent))


def attention(
    q_latent: Float16[Array, "rows heads latent"],
    q_turned: Float16[Array, "rows heads turned"],
    k_turned: Float16[Array, "rows 1 turned"],
    latent: Float16[Array, "rows 1 latent"],
    k_cache: TurnedCache,
    v_cache: LatentCache,
    position: Int32[Array, " rows"],
    *,
    sigma: float,
    block: int,
) -> tuple[Float16[Array, "rows heads latent"], TurnedCache, LatentCache]:
    """Append a turned key and a latent of each row, then all heads attend to the tokens up to the row's own.

    k_cache holds the turned keys, v_cache the latents, which are keys and values both; rows, sequences,
    positions and block as in `models.contract.attention.attention`. sigma: what products are multiplied by.
    """
    if k_cache.dtype not in (jnp.float16, jnp.uint8):
        raise TypeError(
            f"latent_attention: cache is {k_cache.dtype}, the contract takes fp16 or e4m3 codes (uint8)."
        )
    k_cache, v_cache = append(k_cache, k_turned, position), append(v_cache, latent, position)
    sequences, tokens = k_cache.shape[:2]
    share, heads, bits = len(q_latent) // sequences, q_latent.shape[1], blocks.weight_bits(block)
    size = max(n for n in range(1, min(share, PIECE_ROWS) + 1) if share % n == 0)
    of_latent, of_turned = (q.reshape(-1, size * heads, q.shape[-1]) for q in (q_latent, q_turned))
    last = position.reshape(-1, size)

    def attend(piece: Array) -> Array:
        sequence = piece * size // share

        def leaf(first: Array, count: int) -> Attended:
            at = (sequence, first, jnp.int32(0), jnp.int32(0))
            turned, values = (
                lax.dynamic_slice(cache, at, (1, count, 1, cache.shape[-1]))[0, :, 0]
                for cache in (k_cache, v_cache)
            )
            seen = first + jnp.arange(count, dtype=jnp.int32) <= last[piece][:, None]
            scores = latent_scores(of_latent[piece], of_turned[piece], values, turned, sigma)
            return blocks.leaf(blocks.exponents(scores), jnp.repeat(seen, heads, axis=0), values, bits)

        whole, rest = divmod(tokens, block)
        firsts = jnp.arange(whole, dtype=jnp.int32) * block
        parts = [lax.map(lambda first: leaf(first, block), firsts)] if whole else []
        if rest:
            parts.append(jax.tree.map(lambda x: x[None], leaf(jnp.int32(whole * block), rest)))
        leaves = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
        return blocks.out(blocks.root(leaves)).reshape(size, heads, -1)

    out = lax.map(attend, jnp.arange(len(last), dtype=jnp.int32))
    return out.reshape(q_latent.shape), k_cache, v_cache
