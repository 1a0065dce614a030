"""What the Hugging Face folders of Llama 4 (text) mean: the keys of config.json, and the tensors.

Their RoPE turns neighbouring lanes. Source of defaults and names: transformers 5.24, configuration_ and
modeling_llama4.py.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from models.config import TransformerConfig
from models.configs.llama4 import DENSE, FAMILY, Llama4Config
from models.families.expert_tensors import ExpertCounts, ExpertNames, with_experts
from models.families.family import CheckpointTensor, HeadRows
from models.families.llama_checkpoint import ModelType, read
from models.families.llama_checkpoint import tensors as dense_tensors
from models.sources.huggingface.keys import layer_types
from models.sources.json_keys import Keys

MODEL_TYPE = "llama4_text"
_INTERVAL, _CHUNK = 4, 8192  # where the keys are absent
_TRAINED_WITH = ("router_aux_loss_coef", "router_jitter_noise", "output_router_logits")
_NAMES = {"span": "chunked_attention", "full": "full_attention", "nope": "full_attention"}


def _kinds(keys: Keys, layers: int) -> tuple[str, ...]:
    """By `no_rope_layers`, whose 1 says that RoPE is there, or by the interval; runs where there is RoPE."""
    every = keys.integer("no_rope_layer_interval", _INTERVAL)
    turned = keys.get("no_rope_layers") or [int((layer + 1) % every != 0) for layer in range(layers)]
    if not isinstance(turned, list) or any(type(one) is not int or one not in (0, 1) for one in turned):
        raise keys.error("no_rope_layers", turned, "it is a list of 0 and 1")
    if len(turned) != layers:
        raise keys.error(
            "no_rope_layers", turned, f"names {len(turned)} layers, num_hidden_layers is {layers}"
        )
    with_rope = "full" if keys.get("attention_chunk_size", _CHUNK) is None else "span"
    kinds = tuple(with_rope if one else "nope" for one in turned)
    stated = layer_types(keys, layers, tuple(dict.fromkeys(_NAMES.values())))
    if stated is not None and stated != [_NAMES[kind] for kind in kinds]:
        raise keys.error(
            "layer_types", sorted(set(stated)), "layers see runs where they have RoPE, no others"
        )
    return kinds


_DENSE = ModelType(
    sizes=(48, 5120, 40, 8192, 202_048),
    longest=131_072,
    kv_heads=8,
    head_dim=128,
    eps=1e-5,
    theta=500_000.0,
    kinds_of=_kinds,
    more=lambda keys: {} if keys.get("attention_chunk_size", _CHUNK) is None else _span(keys),
    family=FAMILY,
)


def _span(keys: Keys) -> dict[str, Any]:
    return {"span": keys.integer("attention_chunk_size", _CHUNK)}


def _read_llama4(keys: Keys, name: str) -> Llama4Config:
    """The numbers of a `config.json`; what the module would compute otherwise is a WeightError."""
    for key in (*_TRAINED_WITH, "for_llm_compressor"):
        keys.get(key)
    dense = read(_DENSE, keys, name)
    step = keys.integer("interleave_moe_layer_step", 1)
    stated = keys.get("moe_layers")
    if stated is not None and stated != list(range(step - 1, dense.layers, step)):
        raise keys.error(
            "moe_layers", stated, f"only experts in every layer of a step of {step} are supported"
        )
    experts, chosen = keys.integer("num_local_experts", 16), keys.integer("num_experts_per_tok", 1)
    if chosen > experts:
        raise keys.error("num_experts_per_tok", chosen, f"there are {experts} experts")
    if keys.get("attn_temperature_tuning") == 4:  # as some configs of Scout have it
        keys.values["attn_temperature_tuning"] = True
    tuned = keys.flag("attn_temperature_tuning", True)
    floor, slope = keys.integer("floor_scale", 8192), keys.number("attn_scale", 0.1)
    numbers: dict[str, Any] = {one.name: getattr(dense, one.name) for one in fields(TransformerConfig)}
    numbers |= {
        "qk_norm": keys.flag("use_qk_norm", True),
        "ffn": keys.integer("intermediate_size_mlp", 16_384),
    }
    return Llama4Config(
        **numbers,
        experts=experts,
        chosen=chosen,
        expert_ffn=dense.ffn,
        step=step,
        floor=floor if tuned else None,
        slope=slope,
    )


READERS = {MODEL_TYPE: _read_llama4}
_EXPERTS = ExpertNames(
    block="feed_forward",
    router="router.weight",
    shared="shared_expert",
    every=("experts.gate_up_proj", "experts.down_proj"),
    turned=True,
)


def tensors(config: Llama4Config) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    counts = ExpertCounts(config.hidden, config.experts, 1, config.expert_ffn)
    lanes = config.head_dim
    for one in dense_tensors(replace(config, qk_norm=False)):
        block, _, matrix = one.path.rpartition(".")
        layer = int(block.split(".")[1]) if block.startswith("layers.") else -1
        if layer < 0:
            yield one
        elif matrix in ("q", "k") and config.kind_of(layer).removesuffix(DENSE) != "nope":
            heads = config.heads if matrix == "q" else config.kv_heads
            yield replace(one, by_head=HeadRows(heads=heads, rows=lanes, first=0, count=lanes, pairs=True))
        elif matrix in ("gate", "up", "down") and config.sparse(layer):
            yield from with_experts([one], _EXPERTS, counts)
        else:
            yield replace(one, name=one.name.replace(".mlp.", ".feed_forward."))
