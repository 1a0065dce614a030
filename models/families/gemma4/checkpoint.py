"""What the Hugging Face folders of Gemma 4 (text) mean: the keys of config.json, and the tensors.

Source of defaults and names: transformers 5.24, configuration_ and modeling_gemma4.py.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from models.config import TransformerConfig
from models.configs.gemma4 import FAMILY, Gemma4Config
from models.families.family import CheckpointTensor
from models.families.llama_checkpoint import ModelType, read
from models.families.llama_checkpoint import tensors as dense_tensors
from models.sources.huggingface.keys import FULL, WINDOW, alternating
from models.sources.huggingface.rope import by_kind
from models.sources.json_keys import Keys

MODEL_TYPE = "gemma4_text"
_PERIOD, _LOCAL_THETA, _GLOBAL_THETA, _TURNED = 6, 10_000.0, 1e6, 0.25  # where the keys are absent
_DENSE = ModelType(
    sizes=(30, 2304, 8, 9216, 262_144),
    longest=131_072,
    kv_heads=4,
    head_dim=256,
    tied=True,
    qk_norm=True,
    kinds_of=lambda keys, layers: (FULL,) * layers,  # they are told by layer, however long the window is
    activation=("hidden_activation", "gelu_pytorch_tanh"),
    family=FAMILY,
)
_ABSENT = {
    "num_kv_shared_layers": "layers that share the KV of others are not supported",
    "hidden_size_per_layer_input": "inputs of each layer are not supported",
}


def _read_gemma4(keys: Keys, name: str) -> Gemma4Config:
    """The numbers of a `config.json`; what the module would compute otherwise is a WeightError."""
    for key, why in _ABSENT.items():
        usual = 256 if key == "hidden_size_per_layer_input" else 0
        if keys.get(key, usual):
            raise keys.error(key, keys.get(key, usual), why)
    for key in ("vocab_size_per_layer_input", "use_double_wide_mlp"):
        keys.get(key)  # of the inputs and the layers that are refused above
    if (sees := keys.get("use_bidirectional_attention")) not in (None, False, "vision"):
        raise keys.error("use_bidirectional_attention", sees, "tokens see later ones only in pictures")
    layers = keys.stated("num_hidden_layers", _DENSE.sizes[0])
    kinds = (*alternating(keys, layers, _PERIOD)[:-1], FULL)  # whatever it says, the last sees all
    window = keys.integer("sliding_window", 512)
    lanes = keys.integer("global_head_dim", 512)
    turning = _turning(keys, lanes)
    dense = read(_DENSE, keys, name)
    numbers: dict[str, Any] = {one.name: getattr(dense, one.name) for one in fields(TransformerConfig)}
    if keys.get("final_logit_softcapping") is not None:
        numbers["logit_cap"] = keys.number("final_logit_softcapping", 30.0)
    shared, global_heads = keys.flag("attention_k_eq_v"), keys.get("num_global_key_value_heads")
    if shared and global_heads is not None:
        global_heads = keys.integer("num_global_key_value_heads", 1)
    else:
        global_heads = dense.kv_heads
    numbers |= {
        "norms": "both",
        "attention_scale": 1.0,
        "embedding_scale": float(np.float32(dense.hidden**0.5)),
        "kinds": kinds,
        "window": window if WINDOW in kinds else None,
    }
    numbers |= turning
    numbers |= _experts(keys)
    return Gemma4Config(
        **numbers,
        global_head_dim=lanes,
        global_kv_heads=global_heads,
        shared_values=shared,
    )


def _turning(keys: Keys, lanes: int) -> dict[str, Any]:
    """How RoPE turns the heads; the table is made that of layers with a window."""
    stated = keys.get("rope_parameters") is not None
    local = by_kind(keys, local=None, local_theta=_LOCAL_THETA)
    table = keys.table("rope_parameters")
    kind = table.text("rope_type", "default" if stated else "proportional")
    if kind not in ("default", "proportional"):
        raise table.error("rope_type", kind, "only default, proportional are supported for global layers")
    known = ("rope_type", "rope_theta", "partial_rotary_factor", *(("factor",) if kind != "default" else ()))
    if odd := [key for key, value in table.values.items() if key not in known and value is not None]:
        raise table.error(odd[0], table.values[odd[0]], f"the kind {kind!r} takes no such key")
    share = table.number("partial_rotary_factor", 1.0 if stated else _TURNED)
    turned = 2 * int(share * lanes // 2)
    if kind == "default" and share != 1:
        raise table.error("partial_rotary_factor", share, "the kind 'default' turns whole heads")
    if not 0 < turned <= lanes:
        raise table.error("partial_rotary_factor", share, f"turns {turned} of {lanes} lanes")
    theta, stretch = table.number("rope_theta", _GLOBAL_THETA), table.number("factor", 1.0)
    keys.values["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    return {"window_theta": local, "global_turned": turned, "global_stretch": stretch}


def _experts(keys: Keys) -> dict[str, int]:
    """The numbers of experts, if there are any."""
    names = {"experts": "num_experts", "chosen": "top_k_experts", "expert_ffn": "moe_intermediate_size"}
    if not keys.flag("enable_moe_block"):
        for key in names.values():
            keys.get(key)
        return {}
    found = {ours: keys.integer(key) for ours, key in names.items()}
    if found["chosen"] > found["experts"]:
        raise keys.error("top_k_experts", found["chosen"], f"there are {found['experts']} experts")
    return found


READERS = {MODEL_TYPE: _read_gemma4}


def tensors(config: Gemma4Config) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    each = [dense_tensors(config.geometry(kind)) for kind in ("window", "full")]
    for local, wide in zip(*each, strict=True):
        block, _, _ = local.path.partition(".attention.")
        layer = local.path.split(".")[1] if local.path.startswith("layers.") else ""
        one = wide if layer and config.kinds[int(layer)] == FULL else local
        theirs = f"model.layers.{layer}"
        if config.shared_values and one is wide and one.path == f"{block}.attention.v":
            continue
        if not one.path.endswith(".ffn.post.gain"):
            yield one
            continue
        factor = f"{theirs}.layer_scalar"
        yield replace(one, times=(factor, (1,)))
        ours = one.path.removesuffix(".post.gain")
        yield CheckpointTensor(
            path=f"{ours}.kept.gain",
            name=factor,
            shape=(1,),
            made=(lambda value: np.repeat(value, config.hidden), (config.hidden,)),
        )
        if config.experts:
            yield from _beside(config, ours, theirs)


def _beside(config: Gemma4Config, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """The experts of a layer, their router and their norms; the factor of each expert is in its weights."""
    experts, hidden, width = config.experts, config.hidden, config.expert_ffn
    root = np.float32(hidden**-0.5)
    gains = {
        "dense_post": "post_feedforward_layernorm_1",
        "experts.norm": "pre_feedforward_layernorm_2",
        "experts.post": "post_feedforward_layernorm_2",
    }
    for path, name in gains.items():
        yield CheckpointTensor(path=f"{ours}.{path}.gain", name=f"{theirs}.{name}.weight", shape=(hidden,))
    yield CheckpointTensor(
        path=f"{ours}.experts.router_norm.gain",
        name=f"{theirs}.router.scale",
        shape=(hidden,),
        made=(lambda value: value * root, (hidden,)),
    )
    yield CheckpointTensor(
        path=f"{ours}.experts.router",
        name=f"{theirs}.router.proj.weight",
        shape=(experts, hidden),
        half=True,
    )
    up, down = f"{theirs}.experts.gate_up_proj", f"{theirs}.experts.down_proj"
    yield CheckpointTensor(
        path=f"{ours}.experts.gate_up",
        name=up,
        shape=(width, hidden),
        stack=((up,),) * experts,
        stored=((up, (experts, 2 * width, hidden)),),
    )
    yield CheckpointTensor(
        path=f"{ours}.experts.down",
        name=down,
        shape=(hidden, width),
        stack=((down,),) * experts,
        stored=((down, (experts, hidden, width)),),
        times=(f"{theirs}.router.per_expert_scale", (experts,)),
    )
