"""A decoder of layers: embedding, layers, norm, head. What differs between families is the layer.

A layer is a module with `layer(x, angles, position, k_cache, v_cache) -> (x, k_cache, v_cache)`; where a
model has layers of several kinds, it is made for its `kind`. Scopes
(`layers.3.ffn`) name where each op belongs; `embed` and `head` frame the layers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float32, Int32

from models.config import TransformerConfig
from models.contract import ops
from models.kv import KVCache, KVFormat, kv_shape_of
from models.parts import Embedding, Linear, Norm
from models.rope import rope_angles, rope_turns
from models.rope_scaling import Scaling


def layer_at(
    layer: Callable[..., nnx.Module], config: TransformerConfig, index: int, context: int
) -> nnx.Module:
    """A layer of a decoder; a family whose layers are of one kind is asked for no other."""
    kind = config.kind_of(index)
    return layer(config, context=context, **({} if kind == "full" else {"kind": kind}))


def scaled(x: Float32[Array, "batch width"], factor: float | None) -> Float32[Array, "batch width"]:
    """X times a factor, if there is one."""
    return x if factor is None else ops.multiply(x, factor=factor)


def logits_of(config: TransformerConfig, y: Float32[Array, "batch vocab"]) -> Float32[Array, "batch vocab"]:
    """The logits from what the head gives."""
    y = scaled(y, config.logits_scale)
    return y if config.logit_cap is None else ops.softcap(y, cap=config.logit_cap)


class Decoder(nnx.Module):
    """A decoder that takes one token per row of the batch and step, each row a sequence of its own.

    With a cache of fewer sequences the rows are chunks of them (`models.step.build_step`). `batch`, `context`
    (tokens of the KV cache) and `kv` (its format) are fixed, as a compiled program's are.
    """

    def __init__(
        self,
        layer: Callable[..., nnx.Module],
        config: TransformerConfig,
        *,
        batch: int,
        context: int,
        kv: KVFormat = "fp16",
    ) -> None:
        if context > config.longest:
            raise ValueError(f"{config.name}: context {context} is above its longest, {config.longest}.")
        self.config, self.batch, self.context = config, batch, context
        self.kv: KVFormat = kv
        self.embed = Embedding(config.vocab, config.hidden)
        self.angles = nnx.Variable(jnp.asarray(self.constants()["angles"]))
        self.layers = nnx.List([layer_at(layer, config, i, context) for i in range(config.layers)])
        self.norm = Norm(config.hidden, config.eps)
        self.head = Linear(config.hidden, config.vocab, scaled=config.column_scales == "f32")

    def constants(self) -> dict[str, Int32[np.ndarray, "context 2 pairs"]]:
        """Arrays that follow from the configuration and are not weights, by parameter path."""
        return {"angles": np.concatenate([rope_angles(self.context, *one) for one in self._turning()])}

    def plain_constants(self) -> dict[str, Float32[np.ndarray, "context 2 pairs"]]:
        """The same arrays for the plain f32 step: cos and sin unrounded."""
        return {"angles": np.concatenate([rope_turns(self.context, *one) for one in self._turning()])}

    def _turning(self) -> list[tuple[int, float, Scaling | None, int | None]]:
        """Of the table of RoPE, and of the one below it that layers with a window take, if they have one."""
        config = self.config
        tables = [(config.rope_theta, config.rope_scaling)]
        tables += [] if config.window_theta is None else [(config.window_theta, None)]
        return [(config.rope_lanes, theta, scaling, config.turned_lanes) for theta, scaling in tables]

    def cache_shape(self) -> KVCache:
        """Shapes of the KV cache that `__call__` takes."""
        return kv_shape_of(self.config, self.batch, self.context, self.kv)

    def __call__(
        self, tokens: Int32[Array, " batch"], position: Int32[Array, " batch"], cache: KVCache
    ) -> tuple[Float32[Array, "batch vocab"], Int32[Array, " batch"], KVCache]:
        """Logits and the most likely next token, and the cache with these tokens at their positions."""
        angles = self.angles[...]
        keys: list[Array] = []
        values: list[Array] = []
        with jax.named_scope("embed"):
            x = scaled(self.embed(tokens), self.config.embedding_scale)
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layers.{i}"):
                x, k, v = layer(x, angles, position, cache.k[i], cache.v[i])
            keys.append(k)
            values.append(v)
        with jax.named_scope("head"):
            logits = logits_of(self.config, self.head(self.norm.deferred(x)))
            token = ops.argmax(logits)
        return logits, token, KVCache(tuple(keys), tuple(values))
