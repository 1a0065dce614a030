"""BERT in the op vocabulary: the rows of a step are the tokens of one sequence, and each sees all of them.

A shorter sequence fills the step with its last token again, at its last position: these rows compute what the
last one does, and nobody sees a token more. Norms stand after the residual sums, and h of `round16(h)` is
what the sums go on from. Source: transformers, modeling_bert.py.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float16, Float32, Int32

from models.configs.encoder import EncoderConfig
from models.contract import ops
from models.contract.parts import down_starts, starts_of
from models.families.llama import LayerKV, Positions
from models.kv import KVCache, KVFormat, kv_shape_of
from models.parts import Embedding, LayerNorm, Linear

Hidden = Float32[Array, "rows hidden"]


def _linear(config: EncoderConfig, k: int, n: int, starts: tuple[int, ...] = ()) -> Linear:
    return Linear(k, n, scaled=config.column_scales == "f32", bias=True, starts=starts)


class EncoderAttention(nnx.Module):
    """Attention to all tokens of the sequence, its residual, and the norm after that."""

    def __init__(self, config: EncoderConfig) -> None:
        hidden = config.hidden
        self.q, self.k, self.v = (_linear(config, hidden, hidden) for _ in range(3))
        self.o = _linear(config, hidden, hidden, starts_of(hidden, config.head_dim))
        self.norm = LayerNorm(hidden, config.eps)
        self.config = config

    def __call__(
        self, x: Hidden, position: Positions, k_cache: LayerKV, v_cache: LayerKV
    ) -> tuple[Hidden, LayerKV, LayerKV]:
        """All tokens; the caches come back with them."""
        a = ops.round16(x)
        q, k, v = (self._heads(one(a)) for one in (self.q, self.k, self.v))
        block = self.config.attention_block
        out, k_cache, v_cache = ops.attention(q, k, v, k_cache, v_cache, position, block=block, whole=True)
        return self.norm(ops.add(x, self.o(out))), k_cache, v_cache

    def _heads(self, value: Hidden) -> Float16[Array, "rows heads head_dim"]:
        return ops.round16(value.reshape(-1, self.config.heads, self.config.head_dim))


class EncoderFeedForward(nnx.Module):
    """The FFN, its residual, and the norm after that."""

    def __init__(self, config: EncoderConfig) -> None:
        self.up = _linear(config, config.hidden, config.ffn)
        self.down = _linear(config, config.ffn, config.hidden, down_starts(config.ffn))
        self.norm = LayerNorm(config.hidden, config.eps)

    def __call__(self, x: Hidden) -> Hidden:
        """Token by token."""
        up = self.up(ops.round16(x))
        return self.norm(ops.add(x, self.down(ops.glu(up, up, activation="gelu_erf_alone"))))


class EncoderLayer(nnx.Module):
    """Attention, then the FFN."""

    def __init__(self, config: EncoderConfig) -> None:
        self.attention = EncoderAttention(config)
        self.ffn = EncoderFeedForward(config)

    def __call__(
        self, x: Hidden, position: Positions, k_cache: LayerKV, v_cache: LayerKV
    ) -> tuple[Hidden, LayerKV, LayerKV]:
        """All tokens; the caches come back with them."""
        with jax.named_scope("attention"):
            x, k_cache, v_cache = self.attention(x, position, k_cache, v_cache)
        with jax.named_scope("ffn"):
            return self.ffn(x), k_cache, v_cache


class Encoder(nnx.Module):
    """Token, type and position; layers; a number for each label of each token.

    batch: rows of a step. context: positions of the cache, which is that of one sequence's own tokens.
    """

    def __init__(self, config: EncoderConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        if context > config.longest:
            raise ValueError(f"{config.name}: context {context} is above its longest, {config.longest}.")
        self.config, self.batch, self.context = config, batch, context
        self.kv: KVFormat = kv
        self.embed = Embedding(config.vocab, config.hidden)
        self.positions = Embedding(config.max_context, config.hidden)
        self.types = nnx.Param(jnp.zeros(config.hidden, jnp.float32))
        self.norm = LayerNorm(config.hidden, config.eps)
        self.layers = nnx.List([EncoderLayer(config) for _ in range(config.layers)])
        self.head = _linear(config, config.hidden, config.labels)

    def cache_shape(self) -> KVCache:
        """Shapes of the keys and values that `__call__` puts down."""
        return kv_shape_of(self.config, self.batch, self.context, self.kv)

    def __call__(
        self, tokens: Int32[Array, " rows"], position: Int32[Array, " rows"], cache: KVCache
    ) -> tuple[Float32[Array, "rows labels"], Int32[Array, " rows"], KVCache]:
        """The numbers of all labels and the likeliest label of each token, and the cache."""
        keys: list[Array] = []
        values: list[Array] = []
        with jax.named_scope("embed"):
            x = ops.bias(self.embed(tokens), self.types[...])
            x = self.norm(ops.add(x, self.positions(position)))
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layers.{i}"):
                x, k, v = layer(x, position, cache.k[i], cache.v[i])
            keys.append(k)
            values.append(v)
        with jax.named_scope("head"):
            logits = self.head(ops.round16(x))
            label = ops.argmax(logits)
        return logits, label, KVCache(tuple(keys), tuple(values))
