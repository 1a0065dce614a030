"""The Llama family in the op vocabulary: Llama 2 and 3, Mistral, Qwen2, Qwen2.5, Qwen3 (dense), Phi-3, Phi-4.

These modules are the reference that every compiled program is held against, bit by bit, and what the
compiler traces. What differs between the Hugging Face model_types stands in `llama_checkpoint.py`. Other
dense families are the same layers by other numbers (windows, caps, norms after attention and FFN, factors).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
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
Angles = Int32[Array, "rows 2 pairs"] | Float32[Array, "rows 2 pairs"]


def _linear(config: TransformerConfig, k: int, n: int, name: str, starts: tuple[int, ...] = ()) -> Linear:
    return Linear(k, n, scaled=config.column_scales == "f32", bias=name in config.biased, starts=starts)


class Attention(nnx.Module):
    """Grouped-query attention with RoPE, its norms and its residual.

    kind: which tokens it sees and whether RoPE turns it, one of `models.config.KINDS`.
    """

    def __init__(self, config: TransformerConfig, *, context: int, kind: str = "full") -> None:
        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        if config.norms != "post":
            self.norm = Norm(config.hidden, config.eps)
        if config.norms != "pre":
            self.post = Norm(config.hidden, config.eps)
        self.q = _linear(config, config.hidden, q, "q")
        self.k = _linear(config, config.hidden, kv, "k")
        self.v = _linear(config, config.hidden, kv, "v")
        self.o = _linear(config, q, config.hidden, "o", starts_of(q, config.head_dim))
        if config.qk_norm:
            widths = (q, kv) if config.whole_qk_norm else (config.head_dim, config.head_dim)
            self.q_norm, self.k_norm = (Norm(width, config.eps) for width in widths)
        if config.sinks:
            self.sinks = nnx.Param(jnp.zeros(config.heads, jnp.float32))
        self.config, self.kind = config, kind
        self.first = context if kind == "window" and config.window_theta is not None else 0
        self.reach = config.reach_of(kind, context)

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Angles,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float32[Array, "batch hidden"], LayerKV, LayerKV]:
        """One token per row; the caches come back with it appended."""
        config, normed = self.config, self.config.norms != "post"
        a = self.norm.deferred(x) if normed else ops.round16(x)
        turning = None if self.kind == "nope" else angles
        out, k_cache, v_cache = self.attended(a, turning, position, k_cache, v_cache)
        y = self.o(out)
        return residual(config, x, y if config.norms == "pre" else self.post.in_f32(y)), k_cache, v_cache

    def attended(
        self,
        a: Normed | Float16[Array, "batch hidden"],
        angles: Angles | None,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float16[Array, "batch lanes"], LayerKV, LayerKV]:
        """What `o` takes, of what products read; angles: None where nothing is turned."""
        config = self.config
        q, k, v = self.q(a), self.k(a), self.v(a).reshape(-1, config.kv_heads, config.head_dim)
        if config.whole_qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q = q.reshape(-1, config.heads, config.head_dim)
        k = k.reshape(-1, config.kv_heads, config.head_dim)
        if config.qk_norm and not config.whole_qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        window, span = self.reach
        out, k_cache, v_cache = ops.attention(
            self._turned(q, angles, position),
            self._turned(k, angles, position),
            ops.round16(v),
            k_cache,
            v_cache,
            position,
            self.sinks[...] if config.sinks else None,
            block=config.block_for(window or span),
            window=window,
            span=span,
            scale=config.attention_scale or 0.0,
            cap=config.attention_cap or 0.0,
        )
        return out, k_cache, v_cache

    def _turned(
        self, heads: Float[Array, "batch heads head_dim"], angles: Angles | None, position: Positions
    ) -> Float16[Array, "batch heads head_dim"]:
        """The heads in fp16, at their position."""
        if angles is not None:
            return ops.rope(heads, angles, position, first=self.first)
        return heads if heads.dtype == np.float16 else ops.round16(heads)


def residual(
    config: TransformerConfig,
    x: Float32[Array, "batch hidden"],
    y: Float32[Array, "batch hidden"] | Float16[Array, "batch hidden"],
) -> Float32[Array, "batch hidden"]:
    """The residual sum, with the model's factor of what is added: fp16 where a machine sent it so."""
    scale = config.residual_scale
    return ops.add(x, y) if scale is None else ops.multiply_add(x, y, factor=float(np.float32(scale)))


class FeedForward(nnx.Module):
    """The gated FFN with its norms and its residual."""

    def __init__(self, config: TransformerConfig) -> None:
        if config.norms != "post":
            self.norm = Norm(config.hidden, config.eps)
        if config.norms != "pre":
            self.post = Norm(config.hidden, config.eps)
        self.gate = _linear(config, config.hidden, config.ffn, "gate")
        self.up = _linear(config, config.hidden, config.ffn, "up")
        self.down = _linear(config, config.ffn, config.hidden, "down", down_starts(config.ffn))
        self.crosses, self.rounds_up = config.ffn_down, config.ffn_up == "fp16"
        self.config = config

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """One vector per sequence."""
        y = self.product(x)
        return residual(self.config, x, y if self.config.norms == "pre" else self.post.in_f32(y))

    def product(
        self, x: Float32[Array, "batch hidden"]
    ) -> Float32[Array, "batch hidden"] | Float16[Array, "batch hidden"]:
        """What joins the residual, before its norm: fp16 where a machine sent it so."""
        a = self._input(x)
        y = self.down(ops.glu(self.gate(a), self.up(a), activation=self.config.activation))
        return ops.round16(y) if self.rounds_up else y

    def _input(self, x: Float32[Array, "batch hidden"]) -> Float16[Array, "batch hidden"] | Normed:
        """What products read; what another machine is sent is normalised here."""
        if self.config.norms != "post" and self.crosses is None:
            return self.norm.deferred(x)
        a = ops.round16(x) if self.config.norms == "post" else self.norm(x)
        return ops.round8(a) if self.crosses == "fp8" else a


class Layer(nnx.Module):
    """Attention, then FFN; a family that has another FFN replaces it."""

    ffn: Callable[[Float32[Array, "batch hidden"]], Float32[Array, "batch hidden"]]

    def __init__(self, config: TransformerConfig, *, context: int, kind: str = "full") -> None:
        self.attention = Attention(config, context=context, kind=kind)
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
