"""The Llama family as Flax NNX modules in the op vocabulary: Llama 2 and 3, Mistral, Qwen3 (dense).

These modules are the reference that every compiled program is held against, bit by bit, and what the compiler
traces. Scopes (`layers.3.ffn`) name where each op belongs; `embed` and `head` frame the layers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Float16, Float32, Int32, UInt8

from models.config import TransformerConfig
from models.contract import ops
from models.kv import KVCache, KVFormat, kv_shape
from models.rope import rope_angles, rope_turns

Positions = Int32[Array, " batch"]
LayerKV = (
    Float[Array, "sequences tokens kv_heads head_dim"] | UInt8[Array, "sequences tokens kv_heads head_dim"]
)


class Linear(nnx.Module):
    """E4m3 weights [k, n] with a power-of-two scale per column."""

    def __init__(self, k: int, n: int) -> None:
        self.codes = nnx.Param(jnp.zeros((k, n), jnp.uint8))
        self.exponent = nnx.Param(jnp.zeros(n, jnp.int32))

    def __call__(self, a: Float16[Array, "batch k"]) -> Float32[Array, "batch n"]:
        """The product."""
        return ops.matmul(a, self.codes[...], self.exponent[...])


class Norm(nnx.Module):
    """RMS norm over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        self.gain = nnx.Param(jnp.ones(width, jnp.float32))
        self.eps = eps

    def __call__(self, x: Float32[Array, "*batch width"]) -> Float16[Array, "*batch width"]:
        """The normalised vector in fp16."""
        return ops.rms_norm(x, self.gain[...], eps=self.eps)


class Embedding(nnx.Module):
    """The table of token vectors."""

    def __init__(self, vocab: int, hidden: int) -> None:
        self.table = nnx.Param(jnp.zeros((vocab, hidden), jnp.float16))

    def __call__(self, tokens: Int32[Array, " batch"]) -> Float32[Array, "batch hidden"]:
        """One row per token."""
        return ops.embed(self.table[...], tokens)


class Attention(nnx.Module):
    """Grouped-query attention with RoPE, its norm and its residual."""

    def __init__(self, config: TransformerConfig, *, context: int) -> None:
        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.norm = Norm(config.hidden, config.eps)
        self.q = Linear(config.hidden, q)
        self.k = Linear(config.hidden, kv)
        self.v = Linear(config.hidden, kv)
        self.o = Linear(q, config.hidden)
        if config.qk_norm:
            self.q_norm = Norm(config.head_dim, config.eps)
            self.k_norm = Norm(config.head_dim, config.eps)
        self.config = config
        self.fraction_bits = ops.fraction_bits(context)

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Int32[Array, "context 2 pairs"] | Float32[Array, "context 2 pairs"],
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float32[Array, "batch hidden"], LayerKV, LayerKV]:
        """One token per row; the caches come back with it appended."""
        config, a = self.config, self.norm(x)
        q = self.q(a).reshape(-1, config.heads, config.head_dim)
        k = self.k(a).reshape(-1, config.kv_heads, config.head_dim)
        v = self.v(a).reshape(-1, config.kv_heads, config.head_dim)
        if config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        out, k_cache, v_cache = ops.attention(
            ops.rope(q, angles, position),
            ops.rope(k, angles, position),
            ops.round16(v),
            k_cache,
            v_cache,
            position,
            fraction_bits=self.fraction_bits,
        )
        return ops.add(x, self.o(out)), k_cache, v_cache


class FeedForward(nnx.Module):
    """The gated FFN with its norm and its residual."""

    def __init__(self, config: TransformerConfig) -> None:
        self.norm = Norm(config.hidden, config.eps)
        self.gate = Linear(config.hidden, config.ffn)
        self.up = Linear(config.hidden, config.ffn)
        self.down = Linear(config.ffn, config.hidden)
        self.rounds = (config.ffn_down == "fp8", config.ffn_up == "fp16")
        self.activation = config.activation

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """One vector per sequence."""
        a = self.norm(x)
        if self.rounds[0]:
            a = ops.round8(a)
        y = self.down(ops.glu(self.gate(a), self.up(a), activation=self.activation))
        return ops.add(x, ops.round16(y) if self.rounds[1] else y)


class Layer(nnx.Module):
    """Attention, then FFN."""

    def __init__(self, config: TransformerConfig, *, context: int) -> None:
        self.attention = Attention(config, context=context)
        self.ffn = FeedForward(config)


class Llama(nnx.Module):
    """A decoder that takes one token per row of the batch and step, each row a sequence of its own.

    With a cache of fewer sequences the rows are chunks of them (`models.step.build_step`). `batch`, `context`
    (tokens of the KV cache) and `kv` (its format) are fixed, as a compiled program's are.
    """

    def __init__(self, config: TransformerConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        if context > config.max_context:
            raise ValueError(f"{config.name}: context {context} is above its longest, {config.max_context}.")
        self.config, self.batch, self.context = config, batch, context
        self.kv: KVFormat = kv
        self.embed = Embedding(config.vocab, config.hidden)
        self.angles = nnx.Variable(jnp.asarray(self.constants()["angles"]))
        self.layers = nnx.List([Layer(config, context=context) for _ in range(config.layers)])
        self.norm = Norm(config.hidden, config.eps)
        self.head = Linear(config.hidden, config.vocab)

    def constants(self) -> dict[str, np.ndarray]:
        """Arrays that follow from the configuration and are not weights, by parameter path."""
        config = self.config
        return {"angles": rope_angles(self.context, config.head_dim, config.rope_theta, config.rope_scaling)}

    def plain_constants(self) -> dict[str, np.ndarray]:
        """The same arrays for the plain f32 step: cos and sin unrounded."""
        config = self.config
        return {"angles": rope_turns(self.context, config.head_dim, config.rope_theta, config.rope_scaling)}

    def cache_shape(self) -> KVCache:
        """Shapes of the KV cache that `__call__` takes."""
        config = self.config
        return kv_shape(config.layers, self.batch, self.context, config.kv_heads, config.head_dim, self.kv)

    def __call__(
        self, tokens: Int32[Array, " batch"], position: Positions, cache: KVCache
    ) -> tuple[Float32[Array, "batch vocab"], Int32[Array, " batch"], KVCache]:
        """Logits and the most likely next token, and the cache with these tokens at their positions."""
        angles = self.angles[...]
        keys: list[Array] = []
        values: list[Array] = []
        with jax.named_scope("embed"):
            x = self.embed(tokens)
        for i, layer in enumerate(self.layers):
            with jax.named_scope(f"layers.{i}.attention"):
                x, k, v = layer.attention(x, angles, position, cache.k[i], cache.v[i])
            with jax.named_scope(f"layers.{i}.ffn"):
                x = layer.ffn(x)
            keys.append(k)
            values.append(v)
        with jax.named_scope("head"):
            logits = self.head(self.norm(x))
            token = ops.argmax(logits)
        return logits, token, KVCache(tuple(keys), tuple(values))
