"""Llama 4 (text) in the op vocabulary: runs of attention, layers without RoPE, experts with a weighed input.

Norms of q and k have no gain and come before RoPE, which keeps lengths. In layers without RoPE queries grow
with their position: by a table of RoPE's form below the first, whose cosines are those factors and whose
sines are 0. Source: transformers 5.24, modeling_llama4.py.
"""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float16, Float32, Float64, Int32

from models.configs.llama4 import DENSE, FAMILY, Llama4Config
from models.contract import ops
from models.contract.experts.slots import WEIGHED
from models.decoder import Decoder
from models.families.experts import Mixture
from models.families.family import Family
from models.families.llama import Angles, Attention, FeedForward, Layer, LayerKV, Positions
from models.families.llama4.checkpoint import READERS, tensors
from models.kv import KVFormat
from models.parts import Normed


class Llama4Attention(Attention):
    """Attention of one kind."""

    def __init__(self, config: Llama4Config, *, context: int, kind: str = "full") -> None:
        super().__init__(config.attention(kind), context=context, kind=kind)
        self.warms = context if kind == "nope" and config.floor is not None else None

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Angles,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float32[Array, "batch hidden"], LayerKV, LayerKV]:
        """One token per row; the caches come back with it appended."""
        if self.warms is None:
            return super().__call__(x, angles, position, k_cache, v_cache)
        a = self.norm.deferred(x)
        out, k_cache, v_cache = self._warmed(a, angles, position, k_cache, v_cache)
        return ops.add(x, self.o(out)), k_cache, v_cache

    def _warmed(
        self, a: Normed, angles: Angles, position: Positions, k_cache: LayerKV, v_cache: LayerKV
    ) -> tuple[Float16[Array, "batch lanes"], LayerKV, LayerKV]:
        """The heads, queries times the factor of their position."""
        config, (_, span) = self.config, self.reach
        assert self.warms is not None
        q = self.q(a).reshape(-1, config.heads, config.head_dim)
        k, v = (one(a).reshape(-1, config.kv_heads, config.head_dim) for one in (self.k, self.v))
        return ops.attention(
            ops.rope(q, angles, position, first=self.warms),
            ops.round16(k),
            ops.round16(v),
            k_cache,
            v_cache,
            position,
            block=config.block_for(span),
            scale=config.attention_scale or 0.0,
        )


class WeighedMixture(Mixture):
    """Experts whose weight multiplies what they take."""

    def __init__(self, config: Llama4Config) -> None:
        super().__init__(config, config.experts, config.expert_ffn, config.routing)
        self.activation = WEIGHED


class Llama4Layer(Layer):
    """Attention, then experts or a dense FFN."""

    def __init__(self, config: Llama4Config, *, context: int, kind: str = "full") -> None:
        self.attention = Llama4Attention(config, context=context, kind=kind.removesuffix(DENSE))
        self.ffn = FeedForward(config) if kind.endswith(DENSE) else WeighedMixture(config)


class Llama4(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: Llama4Config, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        self.config = config
        super().__init__(Llama4Layer, config, batch=batch, context=context, kv=kv)

    def constants(self) -> dict[str, Int32[np.ndarray, "..."] | Float32[np.ndarray, "..."]]:
        """RoPE's table and the factors of queries, gains of norms that have none, biases of routers."""
        held = super().constants()["angles"]
        below = np.rint(self._factors() * 2**15).astype(np.int32)
        return {"angles": np.concatenate([held, below]), **self._unsaid()}

    def plain_constants(self) -> dict[str, Float32[np.ndarray, "..."]]:
        """The same for the plain f32 step."""
        held = super().plain_constants()["angles"]
        return {"angles": np.concatenate([held, self._factors().astype(np.float32)]), **self._unsaid()}

    def _factors(self) -> Float64[np.ndarray, "positions 2 pairs"]:
        """For every pair of lanes of a position; none where queries stay as they are."""
        config: Any = self.config
        count = 0 if config.floor is None else self.context
        out = np.zeros((count, 2, config.head_dim // 2))
        for position in range(count):
            out[position, 0] = config.warmth(position)
        return out

    def _unsaid(self) -> dict[str, Float32[np.ndarray, " width"]]:
        config: Any = self.config
        out: dict[str, Float32[np.ndarray, " width"]] = {}
        for layer in range(config.layers):
            kind = config.kind_of(layer).removesuffix(DENSE)
            if config.attention(kind).qk_norm:
                for name in ("q_norm", "k_norm"):
                    out[f"layers.{layer}.attention.{name}.gain"] = np.ones(config.head_dim, np.float32)
            if config.sparse(layer):
                out[f"layers.{layer}.ffn.router.bias"] = np.zeros(config.experts, np.float32)
        return out


LLAMA4 = Family(
    name=FAMILY,
    module=Llama4,
    layer=Llama4Layer,
    model_types=READERS,
    tensors=tensors,
    config=Llama4Config,
)
