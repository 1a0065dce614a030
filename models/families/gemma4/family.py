"""Gemma 4 (text) in the op vocabulary: two geometries of heads, experts beside a dense FFN in some models.

Queries and keys are normed with a gain, values without. Each layer ends with a stored factor, which here
meets the residual while the FFN is made; the gain of the norm behind the FFN has it already.
Source: transformers 5.24, modeling_gemma4.py.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Float16, Float32, Int32

from models.configs.gemma4 import FAMILY, Gemma4Config
from models.contract import ops
from models.contract.vocabulary.experts import expert_starts
from models.decoder import Decoder
from models.families.experts import ExpertRouter, Stack
from models.families.family import Family
from models.families.gemma4.checkpoint import READERS, tensors
from models.families.llama import Angles, Attention, FeedForward, Layer, LayerKV, Positions
from models.kv import KVFormat
from models.parts import Norm, Normed
from models.rope_scaling import Scaling

GAIN = "layers.{}.attention.v_norm.gain"


class Gemma4Attention(Attention):
    """Attention with the heads of its kind of layer; values have a norm without a gain."""

    def __init__(self, config: Gemma4Config, *, context: int, kind: str = "full") -> None:
        own = config.geometry(kind)
        super().__init__(own, context=context, kind=kind)
        self.v_norm = Norm(own.head_dim, own.eps)
        self.shares = own.shared_values and kind == "full"
        if self.shares:
            del self.v

    def attended(
        self,
        a: Normed | Float16[Array, "batch hidden"],
        angles: Angles | None,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float16[Array, "batch lanes"], LayerKV, LayerKV]:
        """What `o` takes, of what products read."""
        config, (window, _) = self.config, self.reach
        q = self.q(a).reshape(-1, config.heads, config.head_dim)
        k = self.k(a).reshape(-1, config.kv_heads, config.head_dim)
        v = k if self.shares else self.v(a).reshape(-1, config.kv_heads, config.head_dim)
        return ops.attention(
            self._turned(self.q_norm(q), angles, position),
            self._turned(self.k_norm(k), angles, position),
            self.v_norm(v),
            k_cache,
            v_cache,
            position,
            block=config.block_for(window),
            window=window,
            scale=config.attention_scale or 0.0,
        )

    def _turned(
        self, heads: Float[Array, "batch heads head_dim"], angles: Angles | None, position: Positions
    ) -> Float16[Array, "batch heads head_dim"]:
        """The heads at their position; the table may be for more lanes, or for fewer."""
        assert angles is not None, "every layer is turned"
        pairs = 0 if 2 * angles.shape[-1] == heads.shape[-1] else angles.shape[-1]
        return ops.rope(heads, angles, position, first=self.first, pairs=pairs)


class Factors(nnx.Module):
    """A stored factor, the same for every lane in a checkpoint."""

    def __init__(self, width: int) -> None:
        self.gain = nnx.Param(jnp.ones(width, jnp.float32))

    def __call__(self, x: Float32[Array, "batch width"]) -> Float32[Array, "batch width"]:
        """The vector times it."""
        return ops.multiply_lanes(x, self.gain[...])


class Gemma4FeedForward(FeedForward):
    """The gated FFN, then the end of the layer."""

    def __init__(self, config: Gemma4Config) -> None:
        super().__init__(config)
        self.kept = Factors(config.hidden)

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """One vector per sequence."""
        return ops.add(self.kept(x), self.post.in_f32(self.product(x)))


class Beside(nnx.Module):
    """Experts with their router and their norms: before it, before them and behind them."""

    def __init__(self, config: Gemma4Config) -> None:
        experts, hidden, width = config.experts, config.hidden, config.expert_ffn
        self.router_norm = Norm(hidden, config.eps)
        self.norm, self.post = Norm(hidden, config.eps), Norm(hidden, config.eps)
        self.router = ExpertRouter(hidden, experts, config.routing)
        self.gate_up, self.down = Stack(experts, hidden, 2 * width), Stack(experts, width, hidden)
        self.chosen, self.activation, self.width = config.chosen, config.activation, width

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """What they give, normed."""
        weights, a = self.router(self.router_norm.deferred(x)), self.norm.deferred(x)
        y = ops.experts(
            a.scaled,
            a.statistic,
            weights,
            self.gate_up(),
            self.down(),
            chosen=self.chosen,
            activation=self.activation,
            starts=expert_starts(self.width),
        )
        return self.post.in_f32(y)


class Gemma4Mixture(Gemma4FeedForward):
    """The gated FFN with experts beside it, each with a norm of its own, and one over their sum."""

    def __init__(self, config: Gemma4Config) -> None:
        super().__init__(config)
        self.dense_post = Norm(config.hidden, config.eps)
        self.experts = Beside(config)

    def product(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """What joins the residual, before its norm."""
        dense: Any = super().product(x)
        return ops.add(self.dense_post.in_f32(dense), self.experts(x))


class Gemma4Layer(Layer):
    """Attention, then the FFN, with experts where the model has them."""

    def __init__(self, config: Gemma4Config, *, context: int, kind: str = "full") -> None:
        self.attention = Gemma4Attention(config, context=context, kind=kind)
        self.ffn = Gemma4Mixture(config) if config.experts else Gemma4FeedForward(config)


class Gemma4(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: Gemma4Config, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        self.config = config
        super().__init__(Gemma4Layer, config, batch=batch, context=context, kv=kv)

    def constants(self) -> dict[str, Int32[np.ndarray, "..."] | Float32[np.ndarray, "..."]]:
        """RoPE's table, and the gains of norms that have none."""
        return {**super().constants(), **self._gains()}

    def plain_constants(self) -> dict[str, Float32[np.ndarray, "..."]]:
        """The same for the plain f32 step."""
        return {**super().plain_constants(), **self._gains()}

    def _gains(self) -> dict[str, Float32[np.ndarray, " head_dim"]]:
        config: Any = self.config
        lanes = [config.cached_at(layer)[1] for layer in range(config.layers)]
        return {GAIN.format(layer): np.ones(width, np.float32) for layer, width in enumerate(lanes)}

    def _turning(self) -> list[tuple[int, float, Scaling | None, int | None]]:
        config: Any = self.config
        bases = (config.rope_theta, config.window_theta)
        return [(config.rope_lanes, one, how, None) for one, how in zip(bases, config.speeds, strict=True)]


GEMMA4 = Family(
    name=FAMILY,
    module=Gemma4,
    layer=Gemma4Layer,
    model_types=READERS,
    tensors=tensors,
    config=Gemma4Config,
)
