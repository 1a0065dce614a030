"""What the Hugging Face folders of GLM-4.5 to 4.7 and of MiniMax-M2 mean: keys of config.json, and tensors.

Source of defaults and names: transformers 5.24, configuration_ and modeling_ of glm4_moe and minimax_m2, and
its conversion_mapping.py: checkpoints hold each expert's matrices by themselves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from models.config import TransformerConfig
from models.configs.scored import FAMILY, ScoredConfig
from models.families.expert_tensors import ExpertNames, with_experts
from models.families.family import CheckpointTensor
from models.families.llama_checkpoint import ATTENTION, ModelType, read
from models.families.llama_checkpoint import tensors as dense_tensors
from models.families.scored.keys import RouterType, counts_of, router_numbers
from models.sources.json_keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredType:
    """What one model_type means: of its attention, of its router, of names.

    before: what its keys are made first. asks_qk_norm: whether `use_qk_norm` says if there is one.
    """

    dense: ModelType
    router: RouterType
    before: Callable[[Keys], None]
    names: ExpertNames
    asks_qk_norm: bool = False


def _glm_biases(keys: Keys) -> tuple[str, ...]:
    return ATTENTION[:3] if keys.flag("attention_bias") else ()


def _half_turned(keys: Keys) -> None:
    """RoPE turns half of a head where nothing says how much."""
    tables = keys.values.get("rope_parameters") or {}, keys.values.get("rope_scaling") or {}
    if not any("partial_rotary_factor" in one for one in (keys.values, *tables)):
        keys.values["partial_rotary_factor"] = 0.5


def _minimax(keys: Keys) -> None:
    """The keys of MiniMax's own code as those of the others; raise for what they would change."""
    is_so = {"use_routing_bias": True, "use_qk_norm": True, "qk_norm_type": "per_layer"}
    for key, value in is_so.items():
        if keys.get(key, value) != value:
            raise keys.error(key, keys.get(key), f"experts are computed where it is {value!r}")
    for key in ("num_mtp_modules", "mtp_transformer_layers", "use_mtp"):
        keys.get(key)
    stated = "num_local_experts" if "num_local_experts" in keys.values else "num_experts"
    keys.values["n_routed_experts"] = keys.integer(stated, 256)
    keys.values["moe_intermediate_size"] = keys.stated("intermediate_size", 1536)
    lanes, turned = keys.integer("head_dim", 128), keys.get("rotary_dim")
    if turned is not None:
        keys.values["partial_rotary_factor"] = keys.integer("rotary_dim") / lanes


MODEL_TYPES: dict[str, ScoredType] = {
    "glm4_moe": ScoredType(
        dense=ModelType(
            sizes=(46, 4096, 96, 10944, 151_552),
            longest=131_072,
            kv_heads=8,
            biased=_glm_biases,
            eps=1e-5,
            partial=True,
            family=FAMILY,
        ),
        router=RouterType(dense=1, experts=128, width=1408, groups=1, keep=1, scale=1.0),
        names=ExpertNames(),
        before=_half_turned,
        asks_qk_norm=True,
    ),
    "minimax_m2": ScoredType(
        dense=ModelType(
            sizes=(62, 3072, 48, 1536, 200_064),
            longest=196_608,
            kv_heads=8,
            head_dim=128,
            qk_norm=True,
            theta=5e6,
            partial=True,
            more=lambda keys: {"whole_qk_norm": True},
            family=FAMILY,
        ),
        router=RouterType(dense=0, experts=256, width=1536, shared=0, groups=1, keep=1, scale=1.0),
        names=ExpertNames(
            block="block_sparse_moe", matrices=("w1", "w3", "w2"), bias="e_score_correction_bias"
        ),
        before=_minimax,
    ),
}


def _read_scored(kind: str, keys: Keys, name: str) -> ScoredConfig:
    """The numbers of a `config.json`; what the module would compute otherwise is a WeightError."""
    about = MODEL_TYPES[kind]
    about.before(keys)
    dense = read(about.dense, keys, name)
    numbers: dict[str, Any] = {one.name: getattr(dense, one.name) for one in fields(TransformerConfig)}
    if about.asks_qk_norm:
        numbers["qk_norm"] = keys.flag("use_qk_norm")
    return ScoredConfig(**numbers, **router_numbers(keys, about.router), named_as=kind)


READERS = {kind: partial(_read_scored, kind) for kind in MODEL_TYPES}


def tensors(config: ScoredConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    names = MODEL_TYPES[config.named_as].names
    return with_experts(dense_tensors(config), names, counts_of(config), config.dense)
