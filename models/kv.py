"""What a decoder keeps from step to step: the KV cache, and the states of recurrent layers."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from models.config import TransformerConfig

KVFormat = Literal["fp16", "fp8"]


class KVCache(NamedTuple):
    """Keys and values per layer, each [batch, tokens, kv_heads, head_dim], fp16 or e4m3 codes (uint8).

    Of latent attention v holds the latents, which are keys and values, and k the turned lanes of the keys.
    state: of recurrent layers, f32 [batch, kept, channels] each; a sequence at position 0 begins with zeros.
    Leaves are arrays, or `jax.ShapeDtypeStruct` where only the shape is meant.
    """

    k: tuple[Any, ...]
    v: tuple[Any, ...]
    state: tuple[Any, ...] = ()


def kv_shape(layers: int, batch: int, context: int, kv_heads: int, head_dim: int, kv: KVFormat) -> KVCache:
    """Shapes of the cache of that many equal layers."""
    dtypes = {"fp16": jnp.float16, "fp8": jnp.uint8}
    if kv not in dtypes:
        raise ValueError(f"kv: format {kv!r} is unknown, it is fp16 or fp8.")
    leaf = jax.ShapeDtypeStruct((batch, context, kv_heads, head_dim), dtypes[kv])
    return KVCache((leaf,) * layers, (leaf,) * layers)


def kv_shape_of(config: TransformerConfig, batch: int, context: int, kv: KVFormat) -> KVCache:
    """Shapes of the cache of a model, each layer's as it keeps it."""
    every = [config.cached_at(layer) for layer in range(config.layers)]
    keys = [kv_shape(1, batch, context, heads, lanes, kv).k[0] for heads, lanes, _ in every]
    values = [kv_shape(1, batch, context, heads, lanes, kv).v[0] for heads, _, lanes in every]
    return KVCache(tuple(keys), tuple(values))


def empty_cache(shape: KVCache) -> KVCache:
    """A cache of that shape filled with zeros."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
