"""The k largest of a row: by value, then by the lower id; what is chosen is listed by id."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float32, Int32


def largest(z: Float32[Array, "*batch experts"], k: int) -> Int32[Array, "*batch k"]:
    """Ids of the k largest f32 values, ascending; of equals the lower ids.

    Source: facts/contract2.md section 5, top-k. Raises ValueError for a k that is too large.
    """
    if not 1 <= k <= z.shape[-1]:
        raise ValueError(f"top-k: {k} of {z.shape[-1]} experts cannot be chosen.")
    return jnp.sort(lax.top_k(z, k)[1], axis=-1).astype(jnp.int32)


def taken(values: Array, ids: Int32[Array, "*batch k"]) -> Array:
    """The values [..., experts] at the ids, [..., k]."""
    return jnp.take_along_axis(values, ids, axis=-1)
