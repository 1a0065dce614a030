"""MLA in its latent form: queries go into the space of the cache, which holds one latent and one key a token.

The expanded form rounds keys and values to fp16 instead and has other bits: the latent one is the contract,
for prefill as well. Heads may lie anywhere; the context splits as blocks do. Source: facts/contract2.md 6.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float16, Float32, Float64, Int32, Int64, UInt8

from models.contract import block_attention as blocks
from models.contract.formats import clips16, rn16
from models.contract.numerics import matmul


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
    latent: Float16[Array, "*batch tokens latent"],
    k_rope: Float16[Array, "*batch tokens turned"],
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
