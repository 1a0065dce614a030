"""The Llama family in the op vocabulary: Llama 2 and 3, Mistral, Qwen2, Qwen2.5, Qwen3 (dense), Phi-3, Phi-4.

These modules are the reference that every compiled program is held against, bit by bit, and what the compiler
traces. What differs between the Hugging Face model_types stands in `llama_checkpoint.py`.
"""

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float, Float16, Float32, Int32, UInt8

from models.config import DEFAULT_FAMILY, TransformerConfig
from models.contract import ops
from models.contract.parts import down_starts, starts_of
from models.decoder import Decoder
from models.families.family import Family
from models.families.llama_checkpoint import READERS, tensors
from models.kv import KVFormat
from models.parts import Linear, Norm, Normed

Positions = Int32[Array, " batch"]
LayerKV = (
    Float[Array, "sequences tokens kv_heads head_dim"] | UInt8[Array, "sequences tokens kv_heads head_dim"]
)
Angles = Int32[Array, "context 2 pairs"] | Float32[Array, "context 2 pairs"]


def _linear(config: TransformerConfig, k: int, n: int, name: str, starts: tuple[int, ...] = ()) -> Linear:
    return Linear(k, n, scaled=config.column_scales == "f32", bias=name in config.biased, starts=starts)


class Attention(nnx.Module):
    """Grouped-query attention with RoPE, its norm and its residual."""

    def __init__(self, config: TransformerConfig, *, context: int) -> None:
        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.norm = Norm(config.hidden, config.eps)
        self.q = _linear(config, config.hidden, q, "q")
        self.k = _linear(config, config.hidden, kv, "k")
        self.v = _linear(config, config.hidden, kv, "v")
        self.o = _linear(config, q, config.hidden, "o", starts_of(q, config.head_dim))
        if config.qk_norm:
            self.q_norm = Norm(config.head_dim, config.eps)
            self.k_norm = Norm(config.head_dim, config.eps)
        self.config = config

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Angles,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float32[Array, "batch hidden"], LayerKV, LayerKV]:
        """One token per row; the caches come back with it appended."""
        out, k_cache, v_cache = self.attended(self.norm.deferred(x), angles, position, k_cache, v_cache)
        return ops.add(x, self.o(out)), k_cache, v_cache

    def attended(
        self, a: Normed, angles: Angles | None, position: Positions, k_cache: LayerKV, v_cache: LayerKV
    ) -> tuple[Float16[Array, "batch lanes"], LayerKV, LayerKV]:
        """What `o` takes, of a normed input; angles: None where nothing is turned."""
        config = self.config
        q = self.q(a).reshape(-1, config.heads, config.head_dim)
        k = self.k(a).reshape(-1, config.kv_heads, config.head_dim)
        v = self.v(a).reshape(-1, config.kv_heads, config.head_dim)
        if config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        out, k_cache, v_cache = ops.attention(
            ops.round16(q) if angles is None else ops.rope(q, angles, position),
            ops.round16(k) if angles is None else ops.rope(k, angles, position),
            ops.round16(v),
            k_cache,
            v_cache,
            position,
            block=config.attention_block,
        )
        return out, k_cache, v_cache


class FeedForward(nnx.Module):
    """The gated FFN with its norm and its residual."""

    def __init__(self, config: TransformerConfig) -> None:
        self.norm = Norm(config.hidden, config.eps)
        self.gate = _linear(config, config.hidden, config.ffn, "gate")
        self.up = _linear(config, config.hidden, config.ffn, "up")
        self.down = _linear(config, config.ffn, config.hidden, "down", down_starts(config.ffn))
        self.crosses, self.rounds_up = config.ffn_down, config.ffn_up == "fp16"
        self.activation = config.activation

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """One vector per sequence."""
        a = self.norm.deferred(x) if self.crosses is None else self._sent(x)
        y = self.down(ops.glu(self.gate(a), self.up(a), activation=self.activation))
        return ops.add(x, ops.round16(y) if self.rounds_up else y)

    def _sent(self, x: Float32[Array, "batch hidden"]) -> Float16[Array, "batch hidden"]:
        """What another machine is sent: normalised here."""
        a = self.norm(x)
        return ops.round8(a) if self.crosses == "fp8" else a


class Layer(nnx.Module):
    """Attention, then FFN."""

    def __init__(self, config: TransformerConfig, *, context: int) -> None:
        self.attention = Attention(config, context=context)
        self.ffn = FeedForward(config)

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Angles,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float32[Array, "batch hidden"], LayerKV, LayerKV]:
        """One token per row; the caches come back with it appended."""
        with jax.named_scope("attention"):
            x, k_cache, v_cache = self.attention(x, angles, position, k_cache, v_cache)
        with jax.named_scope("ffn"):
            return self.ffn(x), k_cache, v_cache


class Llama(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: TransformerConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        super().__init__(Layer, config, batch=batch, context=context, kv=kv)


LLAMA = Family(
    name=DEFAULT_FAMILY,
    module=Llama,
    layer=Layer,
    model_types=READERS,
    tensors=tensors,
)
