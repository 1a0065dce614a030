"""What the Hugging Face folders of models with experts mean: the keys of config.json, and the tensors.

Source of defaults and names: transformers 5.24, configuration_ and modeling_ of the model_types here, and its
conversion_mapping.py: checkpoints hold each expert's matrices by themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from models.config import TransformerConfig
from models.configs.experts import FAMILY, ExpertsConfig, Names
from models.families.expert_tensors import ExpertCounts, ExpertNames, with_experts
from models.families.family import CheckpointTensor
from models.families.granite import factors
from models.families.llama_checkpoint import ModelType, read
from models.families.llama_checkpoint import tensors as dense_tensors
from models.sources.huggingface.keys import FULL, WINDOW, Kinds, all_windows, layer_types
from models.sources.json_keys import Keys

_TRAINED_WITH = ("router_aux_loss_coef", "router_jitter_noise", "output_router_logits")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertType:
    """What the `config.json` of one model_type means besides what a dense one does.

    experts, chosen: where absent. width: the key of an expert's width, and its default. renormalise: by key
    norm_topk_prob where that is None. names: of the tensors of experts.
    """

    dense: ModelType
    experts: int
    chosen: int
    width: tuple[str, int]
    renormalise: bool | None
    names: ExpertNames


def _if_used(keys: Keys, layers: int) -> Kinds:
    """Every layer has the window, if it is used."""
    layer_types(keys, layers)
    keys.get("max_window_layers")  # whatever it says
    return (WINDOW if keys.flag("use_sliding_window") else FULL,) * layers


def _biases(keys: Keys) -> tuple[str, ...]:
    return tuple("qkvo") if keys.flag("attention_bias") else ()


MIXTRAL = ExpertType(
    dense=ModelType(
        sizes=(32, 4096, 32, 14336, 32000), longest=131_072, kv_heads=8, eps=1e-5, kinds_of=all_windows
    ),
    experts=8,
    chosen=2,
    width=("intermediate_size", 14336),
    renormalise=True,
    names=ExpertNames(block="block_sparse_moe", matrices=("w1", "w3", "w2")),
)
QWEN3_MOE = ExpertType(
    dense=ModelType(
        sizes=(24, 2048, 32, 6144, 151_936),
        longest=32_768,
        kv_heads=4,
        qk_norm=True,
        biased=_biases,
        kinds_of=_if_used,
        window=4096,
    ),
    experts=128,
    chosen=8,
    width=("moe_intermediate_size", 768),
    renormalise=None,
    names=ExpertNames(),
)
OLMOE = ExpertType(
    dense=ModelType(
        sizes=(16, 2048, 16, 2048, 50304),
        longest=4096,
        eps=1e-5,
        qk_norm=True,
        biased=_biases,
        more=lambda keys: {"whole_qk_norm": True},
    ),
    experts=64,
    chosen=8,
    width=("intermediate_size", 2048),
    renormalise=None,
    names=ExpertNames(),
)
GRANITE_MOE = ExpertType(
    dense=ModelType(sizes=(32, 4096, 32, 11008, 32000), longest=2048, biased=_biases, more=factors),
    experts=8,
    chosen=2,
    width=("intermediate_size", 11008),
    renormalise=True,
    names=ExpertNames(
        block="block_sparse_moe",
        router="router.layer.weight",
        every=("input_linear.weight", "output_linear.weight"),
    ),
)
EXPERT_TYPES: dict[Names, ExpertType] = {
    "mixtral": MIXTRAL,
    "qwen3_moe": QWEN3_MOE,
    "olmoe": OLMOE,
    "granitemoe": GRANITE_MOE,
}


def _read_experts(kind: Names, keys: Keys, name: str) -> ExpertsConfig:
    """The numbers of a `config.json`; what the module would compute otherwise is a WeightError."""
    about = EXPERT_TYPES[kind]
    dense = read(about.dense, keys, name)
    for key in _TRAINED_WITH:
        keys.get(key)
    _every_layer(keys)
    stated = "num_experts" if "num_experts" in keys.values else "num_local_experts"
    both = [keys.get(key) for key in ("num_experts", "num_local_experts")]
    if None not in both and both[0] != both[1]:
        raise keys.error("num_experts", keys.values["num_experts"], "num_local_experts is another number")
    experts, chosen = keys.integer(stated, about.experts), keys.integer("num_experts_per_tok", about.chosen)
    if chosen > experts:
        raise keys.error("num_experts_per_tok", chosen, f"there are {experts} experts")
    renormalise = about.renormalise
    numbers: dict[str, Any] = {one.name: getattr(dense, one.name) for one in fields(TransformerConfig)}
    numbers |= {"ffn": keys.integer(*about.width), "family": FAMILY}
    return ExpertsConfig(
        **numbers,
        experts=experts,
        chosen=chosen,
        renormalise=keys.flag("norm_topk_prob") if renormalise is None else renormalise,
        named_as=kind,
    )


def _every_layer(keys: Keys) -> None:
    """Raise for layers without experts."""
    dense = keys.get("mlp_only_layers")
    if dense:
        raise keys.error(
            "mlp_only_layers", dense, "layers without experts among those with are not supported"
        )
    step = keys.get("decoder_sparse_step")
    if step not in (None, 1):
        raise keys.error("decoder_sparse_step", step, "only experts in every layer are supported")


READERS = {kind: partial(_read_experts, kind) for kind in EXPERT_TYPES}


def tensors(config: ExpertsConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    counts = ExpertCounts(config.hidden, config.experts, 0, config.ffn)
    return with_experts(dense_tensors(config), EXPERT_TYPES[config.named_as].names, counts)
