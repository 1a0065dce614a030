"""Decoders of the kind of gpt-oss: sinks and alternating windows, experts with biases and a clipped gate.

Attention is that of the Llama family. The biases of the down projections are a product of their own: the
weights of the router, in fp16, times a matrix of a row for each expert. Source of keys, defaults and names:
transformers 5.24, configuration_ and modeling_gpt_oss.py; facts/contract2.md sections 5 and 7.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float32

from models.config import TransformerConfig
from models.configs.gpt_oss import FAMILY, LIMIT, SLOPE, GptOssConfig
from models.contract import ops
from models.contract.experts.slots import OAI
from models.contract.vocabulary.experts import expert_starts
from models.decoder import Decoder
from models.families.experts import ExpertRouter, Stack
from models.families.family import CheckpointTensor, Family
from models.families.llama import Attention, Layer
from models.families.llama_checkpoint import ATTENTION, ModelType, read
from models.families.llama_checkpoint import tensors as dense_tensors
from models.kv import KVFormat
from models.parts import Norm
from models.routing import Routing
from models.sources.huggingface.keys import alternating
from models.sources.json_keys import Keys

_TRAINED_WITH = ("router_aux_loss_coef", "output_router_logits")
_FIXED = {"swiglu_limit": LIMIT, "swiglu_alpha": SLOPE}
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""Where no RoPE is stated."""
DENSE = ModelType(
    sizes=(36, 2880, 64, 2880, 201_088),
    longest=131_072,
    kv_heads=8,
    head_dim=64,
    eps=1e-5,
    theta=150_000.0,
    biased=lambda keys: ATTENTION if keys.flag("attention_bias", True) else (),
    kinds_of=partial(alternating, period=2),
    window=128,
    more=lambda keys: {"sinks": True},
)


class UpStack(Stack):
    """Gate and up of every expert, and their biases, of one expert behind those of another."""

    def __init__(self, experts: int, k: int, n: int) -> None:
        super().__init__(experts, k, n)
        self.bias = nnx.Param(jnp.zeros(experts * n, jnp.float32))


class DownStack(Stack):
    """The down projection of every expert, and a row of biases of each."""

    def __init__(self, experts: int, k: int, n: int) -> None:
        super().__init__(experts, k, n)
        self.bias = nnx.Param(jnp.zeros((experts, n), jnp.float16))


class BiasedMixture(nnx.Module):
    """A router and the experts that it chooses from, all with biases, with their norm and their residual."""

    def __init__(self, config: GptOssConfig) -> None:
        routing = Routing(chosen=config.chosen, renormalise=True)
        self.norm = Norm(config.hidden, config.eps)
        self.router = ExpertRouter(config.hidden, config.experts, routing, biased=True)
        self.gate_up = UpStack(config.experts, config.hidden, 2 * config.ffn)
        self.down = DownStack(config.experts, config.ffn, config.hidden)
        self.chosen, self.width, self.config = config.chosen, config.ffn, config

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """One vector per row."""
        a = self.norm.sent(x, self.config.ffn_down)
        weights = self.router(a)
        biases = None if self.config.ffn_down is None else self._biases(weights)
        y = ops.experts(
            a.scaled,
            a.statistic,
            weights,
            self.gate_up(),
            self.down(),
            self.gate_up.bias[...],
            chosen=self.chosen,
            activation=OAI,
            starts=expert_starts(self.width),
        )
        if biases is None:
            return ops.add(ops.add(x, self._biases(weights)), y)
        made = ops.add(biases, y)  # one value comes back from another machine
        return ops.add(x, ops.round16(made) if self.config.ffn_up == "fp16" else made)

    def _biases(self, weights: Float32[Array, "batch experts"]) -> Float32[Array, "batch hidden"]:
        """The biases of the down projections, as much as each expert counts."""
        return ops.matmul16(ops.round16(weights), self.down.bias[...])


class GptOssLayer(Layer):
    """Attention, then experts."""

    def __init__(self, config: GptOssConfig, *, context: int, kind: str = "full") -> None:
        self.attention = Attention(config, context=context, kind=kind)
        self.ffn = BiasedMixture(config)


class GptOss(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: GptOssConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        super().__init__(GptOssLayer, config, batch=batch, context=context, kv=kv)


def read_gpt_oss(keys: Keys, name: str) -> GptOssConfig:
    """The numbers of a `config.json`; what the module would compute otherwise is a WeightError."""
    if not (keys.get("rope_scaling") or keys.get("rope_parameters")):
        keys.values["rope_parameters"] = dict(YARN)
    dense = read(DENSE, keys, name)
    for key in (*_TRAINED_WITH, "initial_context_length"):
        keys.get(key)
    for key, only in _FIXED.items():
        if (value := keys.number(key, only)) != only:
            raise keys.error(key, value, f"only {only} is supported")
    one, other = keys.get("num_local_experts"), keys.get("num_experts")  # one number by two names
    if None not in (one, other) and one != other:
        raise keys.error("num_experts", other, f"num_local_experts is {one!r}; leave one of the two")
    stated = "num_experts" if one is None and other is not None else "num_local_experts"
    experts, chosen = keys.integer(stated, 128), keys.integer("num_experts_per_tok", 4)
    if (again := keys.get("experts_per_token")) not in (None, chosen):
        raise keys.error("experts_per_token", again, f"num_experts_per_tok is {chosen}; leave one of the two")
    if chosen > experts:
        raise keys.error("num_experts_per_tok", chosen, f"there are {experts} experts")
    numbers: dict[str, Any] = {one.name: getattr(dense, one.name) for one in fields(TransformerConfig)}
    numbers |= {"family": FAMILY}
    return GptOssConfig(**numbers, experts=experts, chosen=chosen)


def tensors(config: GptOssConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    e, width, hidden = config.experts, 2 * config.ffn, config.hidden
    order = np.concatenate([np.arange(0, width, 2), np.arange(1, width, 2)])  # gate and up lie in turn
    for one in dense_tensors(config):
        layer, _, matrix = one.path.rpartition(".")
        if not layer.endswith(".ffn"):
            yield one
            continue
        theirs = f"model.{layer.removesuffix('.ffn')}.mlp"
        if matrix == "gate":
            router = f"{theirs}.router"
            yield CheckpointTensor(
                path=f"{layer}.router", name=f"{router}.weight", shape=(e, hidden), half=True
            )
            yield CheckpointTensor(path=f"{layer}.router.bias", name=f"{router}.bias", shape=(e,))
            up = CheckpointTensor(
                path=f"{layer}.gate_up",
                name=f"{theirs}.experts.gate_up_proj",
                shape=(e, hidden, width),
                every=tuple(order.tolist()),
            )
            yield up
            yield replace(
                up,
                path=f"{layer}.gate_up.bias",
                name=f"{up.name}_bias",
                shape=(e, width),
                every=(),
                made=(lambda values: values[:, order].reshape(-1), (e * width,)),
            )
        elif matrix == "down":
            name = f"{theirs}.experts.down_proj"
            every = tuple(range(hidden))
            yield replace(one, name=name, shape=(e, config.ffn, hidden), every=every)
            yield CheckpointTensor(
                path=f"{layer}.down.bias", name=f"{name}_bias", shape=(e, hidden), table=True
            )


GPT_OSS = Family(
    name=FAMILY,
    module=GptOss,
    layer=GptOssLayer,
    model_types={"gpt_oss": read_gpt_oss},
    tensors=tensors,
    config=GptOssConfig,
)
