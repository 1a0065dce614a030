"""Decoders whose FFN is a mixture of experts with a softmax router: Mixtral, Qwen3-MoE.

Attention is that of the Llama family. What differs between the Hugging Face model_types stands in
`experts_checkpoint.py`.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float32, Int32

from models.config import TransformerConfig
from models.configs.experts import FAMILY, ExpertsConfig
from models.contract import ops
from models.contract.experts.slots import UNGATED
from models.contract.vocabulary.experts import expert_starts
from models.decoder import Decoder
from models.families.experts_checkpoint import READERS, tensors
from models.families.family import Family
from models.families.llama import Attention, Layer, residual
from models.kv import KVFormat
from models.parts import Norm, Normed
from models.routing import Routing


class ExpertRouter(nnx.Module):
    """Fp16 weights [k, columns] with a power of two each, and a bias, which sigmoids always have.

    columns: one for each expert, and behind them one for the gate of a shared expert.
    """

    def __init__(self, k: int, experts: int, routing: Routing, *, biased: bool = False) -> None:
        columns = routing.columns(experts)
        self.halves = nnx.Param(jnp.zeros((k, columns), jnp.float16))
        self.exponent = nnx.Param(jnp.zeros(columns, jnp.int32))
        self.biased = biased or routing.score == "sigmoid"
        if self.biased:
            self.bias = nnx.Param(jnp.zeros(experts, jnp.float32))
        self.routing = routing

    def __call__(self, a: Normed) -> Float32[Array, "batch every"]:
        """How much each expert counts."""
        sums, exponent = ops.matmul16(a.scaled, self.halves[...]), self.exponent[...]
        bias = self.bias[...] if self.biased else None
        return ops.route(sums, a.statistic, exponent, bias, routing=self.routing)


class Stack(nnx.Module):
    """E4m3 weights [experts, k, n] with a power of two per column that all experts share."""

    def __init__(self, experts: int, k: int, n: int) -> None:
        self.codes = nnx.Param(jnp.zeros((experts, k, n), jnp.uint8))
        self.exponent = nnx.Param(jnp.zeros(n, jnp.int32))

    def __call__(self) -> tuple[Array, Int32[Array, " n"]]:
        """Codes and exponents."""
        return self.codes[...], self.exponent[...]


class Mixture(nnx.Module):
    """A router and the experts that it chooses from, with their norm and their residual.

    width: of each expert. Shared ones stand behind those of the router. activation: None: the config's.
    inside: lanes of what experts take and give, None: those of the residual.
    """

    def __init__(
        self,
        config: TransformerConfig,
        experts: int,
        width: int,
        routing: Routing,
        activation: str | None = None,
        inside: int | None = None,
    ) -> None:
        every, lanes = experts + routing.shared, inside or config.hidden
        self.norm = Norm(config.hidden, config.eps)
        self.router = ExpertRouter(config.hidden, experts, routing)
        self.activation = activation or config.activation
        self.gated = self.activation not in UNGATED
        setattr(self, self._up, Stack(every, lanes, 2 * width if self.gated else width))
        self.down = Stack(every, width, lanes)
        self.width, self.taken, self.config = width, routing.chosen + routing.shared, config

    @property
    def _up(self) -> str:
        """The stack of gate and up, or of up alone."""
        return "gate_up" if self.gated else "up"

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """One vector per row."""
        a = self.norm.sent(x, self.config.ffn_down)
        y = self.summed(a, self.router(a))
        return residual(self.config, x, ops.round16(y) if self.config.ffn_up == "fp16" else y)

    def summed(self, a: Normed, weights: Float32[Array, "batch every"]) -> Float32[Array, "batch lanes"]:
        """The experts' results, each times its weight."""
        return ops.experts(
            a.scaled,
            a.statistic,
            weights,
            getattr(self, self._up)(),
            self.down(),
            chosen=self.taken,
            activation=self.activation,
            starts=expert_starts(self.width),
        )


class MixtureLayer(Layer):
    """Attention, then experts."""

    def __init__(self, config: ExpertsConfig, *, context: int, kind: str = "full") -> None:
        self.attention = Attention(config, context=context, kind=kind)
        routing = Routing(chosen=config.chosen, renormalise=config.renormalise)
        self.ffn = Mixture(config, config.experts, config.ffn, routing)


class MixtureDecoder(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: ExpertsConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        super().__init__(MixtureLayer, config, batch=batch, context=context, kv=kv)


EXPERTS = Family(
    name=FAMILY,
    module=MixtureDecoder,
    layer=MixtureLayer,
    model_types=READERS,
    tensors=tensors,
    config=ExpertsConfig,
)
