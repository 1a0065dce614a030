"""The ops that a published model needs besides those of a dense Llama, from the keys of its config.json.

Names are those of `models.contract.ops.OPS`. What one of its ops must be able to do besides (a window, sinks)
is an attribute or operand of that op, by its name there.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from models.published.count import experts_of

Config = Mapping[str, Any]


class NeededOp(NamedTuple):
    """An op, or what an op must take."""

    op: str
    takes: str = ""

    def __str__(self) -> str:
        return f"{self.op} with {self.takes}" if self.takes else self.op


def _kinds(c: Config) -> list[str]:
    return [*c.get("layer_types", ()), *c.get("block_counts", ())]


def _is(*kinds: str) -> Callable[[Config], bool]:
    return lambda c: c.get("model_type") in kinds


def _windowed(c: Config) -> bool:
    """Whether attention sees fewer tokens in some layer than the model's longest context."""
    width, longest = c.get("sliding_window"), c.get("max_position_embeddings")
    used = width is not None and c.get("use_sliding_window") is not False
    return used and (longest is None or width < longest)


_MAMBA2 = ("mamba2", "nemotron_h", "falcon_h1", "granitemoehybrid", "bamba")
RULES: tuple[tuple[NeededOp, Callable[[Config], bool]], ...] = (
    (NeededOp("route"), lambda c: experts_of(c) > 1),
    (NeededOp("experts"), lambda c: experts_of(c) > 1),
    (NeededOp("latent_attention"), lambda c: "kv_lora_rank" in c),
    (NeededOp("indexer"), lambda c: "index_topk" in c),
    (NeededOp("attention", "window"), _windowed),
    (NeededOp("attention", "span"), lambda c: "attention_chunk_size" in c),
    (NeededOp("attention", "sink"), lambda c: c.get("model_type") == "gpt_oss" or "attention_sinks" in c),
    (NeededOp("attention", "cap"), lambda c: c.get("attn_logit_softcapping") is not None),
    (NeededOp("attention", "blocks"), lambda c: "sparse_block_attention" in c),
    (NeededOp("attention", "compression"), _is("deepseek_v4")),
    (NeededOp("hyper_connection"), lambda c: "hc_mult" in c),
    (NeededOp("conv"), lambda c: c.get("model_type") in (*_MAMBA2, "jamba", "kimi_k3") or _delta(c)),
    (NeededOp("ssm"), _is(*_MAMBA2, "jamba")),
    (NeededOp("delta"), lambda c: _delta(c) or c.get("model_type") == "kimi_k3"),
    (NeededOp("glu", "situ"), lambda c: c.get("hidden_act") == "situ"),
    (NeededOp("per_layer_input"), lambda c: bool(c.get("hidden_size_per_layer_input"))),
)
"""In the order in which a model's lack is told."""


def _delta(c: Config) -> bool:
    return "linear_attention" in _kinds(c)


def needs(config: Config) -> tuple[NeededOp, ...]:
    """What a model needs of the vocabulary."""
    return tuple(need for need, asks in RULES if asks(config))


def missing(config: Config) -> tuple[NeededOp, ...]:
    """What of it the vocabulary lacks now."""
    return tuple(need for need in needs(config) if not _held(need))


def _held(need: NeededOp) -> bool:
    from models.contract.ops import OPS  # brings JAX

    record = OPS.get(need.op)
    if record is None or not need.takes:
        return record is not None
    names = inspect.signature(record.contract).parameters
    return need.takes in names
