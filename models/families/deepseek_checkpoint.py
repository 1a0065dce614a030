"""What the Hugging Face folders of DeepSeek-V2, V3, V3.2, Kimi-K2 and GLM-5 mean: config.json, and tensors.

Source of defaults and names: transformers 5.24, configuration_ and modeling_ of deepseek_v2, deepseek_v3,
deepseek_v32 and glm_moe_dsa; Kimi-K2's own code is that of DeepSeek-V3. Their RoPE turns neighbouring lanes:
rows are reordered at load.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from models.configs.latent import LatentConfig, LatentExpertsConfig
from models.families.expert_tensors import ExpertNames, with_experts
from models.families.family import EMBEDDING, HEAD, LM_HEAD, TABLE, CheckpointTensor, HeadRows
from models.families.scored.keys import TRAINED_WITH, RouterType, counts_of, first_dense, router_numbers
from models.rope_scaling import YarnScaling
from models.sources.huggingface.keys import activation_of, layer_types
from models.sources.huggingface.rope import rope_of
from models.sources.json_keys import Keys

LATENT_EPS = 1e-6  # of the norms of latents, whatever rms_norm_eps says: the default of their class
_SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
_LANES = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
EXPERTS_FAMILY = "deepseek_experts"
_OF_EXPERTS = (
    *("n_shared_experts", "routed_scaling_factor", "n_group", "topk_group", "num_experts_per_tok"),
    *("moe_intermediate_size", "norm_topk_prob", "scoring_func", "topk_method", "moe_layer_freq"),
    *("num_experts", "num_local_experts"),
)
"""Keys that a model without experts may hold, and that then change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentType:
    """What the `config.json` of one model_type means by what it leaves out.

    sizes: of _SIZES; longest: max_position_embeddings likewise. router: of its experts. index: heads, lanes
    and kept tokens of an indexer, if it has one.
    """

    sizes: tuple[int, int, int, int, int]
    longest: int
    router: RouterType
    index: tuple[int, int, int] | None = None


MODEL_TYPES = {
    "deepseek_v2": LatentType(
        sizes=(32, 4096, 32, 11008, 102_400),
        longest=2048,
        router=RouterType(
            dense=0,
            experts=64,
            width=1407,
            chosen=6,
            shared=2,
            groups=1,
            keep=1,
            scale=1.0,
            renormalise=False,
            score="softmax",
        ),
    ),
    "deepseek_v3": LatentType(
        sizes=(61, 7168, 128, 18432, 129_280), longest=4096, router=RouterType(dense=3, experts=256)
    ),
    "deepseek_v32": LatentType(
        sizes=(61, 7168, 128, 18432, 129_280),
        longest=163_840,
        router=RouterType(dense=3, experts=256),
        index=(64, 128, 2048),
    ),
    "glm_moe_dsa": LatentType(
        sizes=(78, 6144, 64, 12288, 154_880),
        longest=202_752,
        router=RouterType(dense=3, experts=256, groups=1, keep=1),
        index=(32, 128, 2048),
    ),
    "kimi_k2": LatentType(
        sizes=(61, 7168, 64, 18432, 163_840),
        longest=4096,
        router=RouterType(dense=1, experts=384, groups=1, keep=1, scale=2.827),
    ),
    "glm4_moe_lite": LatentType(
        sizes=(47, 2048, 20, 10240, 154_880),
        longest=202_752,
        router=RouterType(dense=1, experts=64, width=1536, chosen=4, groups=1, keep=1, scale=1.8),
    ),
}


def _read(kind: LatentType, keys: Keys, name: str) -> LatentConfig:
    """The numbers of a `config.json`; what the module would compute otherwise is a WeightError."""
    layers, hidden, heads, ffn, vocab = (
        keys.stated(key, size) for key, size in zip(_SIZES, kind.sizes, strict=True)
    )
    mixed = _has_experts(kind, keys, layers)
    kv_lora, nope, turned, value = (keys.integer(key) for key in _LANES)
    q_lora = keys.integer("q_lora_rank") if keys.get("q_lora_rank") is not None else None
    longest = keys.stated("max_position_embeddings", kind.longest)
    for key, held in (("qk_head_dim", nope + turned), ("head_dim", turned)):
        if keys.get(key) not in (None, held):
            raise keys.error(key, keys.get(key), f"qk_nope_head_dim and qk_rope_head_dim make it {held}")
    if turned % 2:
        raise keys.error("qk_rope_head_dim", turned, "RoPE turns pairs, it must be even")
    if keys.get("num_key_value_heads", heads) not in (None, heads):
        why = f"one latent serves all heads, it is num_attention_heads, {heads}"
        raise keys.error("num_key_value_heads", keys.get("num_key_value_heads"), why)
    if keys.get("rope_interleave", True) is not True:
        raise keys.error("rope_interleave", keys.get("rope_interleave"), "only neighbouring pairs turn")
    if keys.get("num_nextn_predict_layers") not in (None, 0):
        keys.get("num_mtp_layers")
    rope = rope_of(keys, longest, turned)
    index = (None, None, None) if kind.index is None else _index(kind.index, keys, layers)
    held = LatentConfig(
        name=name,
        family="deepseek",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=1,
        head_dim=nope + turned,
        ffn=ffn,
        vocab=vocab,
        tied=keys.flag("tie_word_embeddings"),
        rope_theta=rope.theta,
        eps=keys.number("rms_norm_eps", 1e-6),
        max_context=longest,
        source=f"config.json of the Hugging Face folder {name}",
        rope_scaling=rope.scaling,
        activation=activation_of(keys),
        kv_lora=kv_lora,
        nope=nope,
        rope=turned,
        value=value,
        q_lora=q_lora,
        latent_eps=LATENT_EPS,
        mscale=_mscale(keys) if isinstance(rope.scaling, YarnScaling) else 1.0,
        index_heads=index[0],
        index_lanes=index[1],
        index_keeps=index[2],
    )
    return _with_experts(kind, keys, held) if mixed else held


def _index(usual: tuple[int, int, int], keys: Keys, layers: int) -> tuple[int, int, int]:
    """The numbers of an indexer; which layers share a choice says nothing where every token is chosen."""
    layer_types(keys, layers, ("indexed_attention",))
    for key in ("indexer_types", "index_topk_freq", "index_skip_topk_offset", "index_topk_pattern"):
        keys.get(key)
    names = ("index_n_heads", "index_head_dim", "index_topk")
    heads, lanes, keeps = (keys.stated(key, size) for key, size in zip(names, usual, strict=True))
    return heads, lanes, keeps


def _has_experts(kind: LatentType, keys: Keys, layers: int) -> bool:
    """Whether any layer has experts; raise for those of a kind that is not computed."""
    dense = first_dense(keys, kind.router.dense)
    experts = keys.get("n_routed_experts", kind.router.experts)
    mixed = experts not in (None, 0) and dense < layers
    for key in () if mixed else (*TRAINED_WITH, *_OF_EXPERTS):
        keys.get(key)
    return mixed


def _with_experts(kind: LatentType, keys: Keys, held: LatentConfig) -> LatentExpertsConfig:
    """The same numbers with those of experts; raise for routers that are another's."""
    numbers: dict[str, Any] = {one.name: getattr(held, one.name) for one in fields(LatentConfig)}
    numbers["family"] = EXPERTS_FAMILY
    return LatentExpertsConfig(**numbers, **router_numbers(keys, kind.router))


def _mscale(keys: Keys) -> float:
    """By what YaRN scales the scores, a square root of it: `mscale_all_dim` of the table."""
    rope = keys.table("rope_scaling")
    rope = rope if rope.values else keys.table("rope_parameters")
    factor, every = rope.number("factor"), rope.number("mscale_all_dim", 0.0)
    return 1.0 if not every or factor <= 1 else 0.1 * every * math.log(factor) + 1.0


READERS = {name: partial(_read, kind) for name, kind in MODEL_TYPES.items()}


def tensors(config: LatentConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    hidden = config.hidden
    yield CheckpointTensor(path=TABLE, name=EMBEDDING, shape=(config.vocab, hidden))
    for i in range(config.layers):
        layer = f"model.layers.{i}"
        yield _gain(f"layers.{i}.attention.norm", f"{layer}.input_layernorm", hidden)
        yield from _attention(config, f"layers.{i}.attention", f"{layer}.self_attn")
        yield _gain(f"layers.{i}.ffn.norm", f"{layer}.post_attention_layernorm", hidden)
        for name, shape in (
            ("gate", (config.ffn, hidden)),
            ("up", (config.ffn, hidden)),
            ("down", (hidden, config.ffn)),
        ):
            theirs = f"{layer}.mlp.{name}_proj.weight"
            yield CheckpointTensor(path=f"layers.{i}.ffn.{name}", name=theirs, shape=shape)
    yield _gain("norm", "model.norm", hidden)
    head = EMBEDDING if config.tied else LM_HEAD
    yield CheckpointTensor(path=HEAD, name=head, shape=(config.vocab, hidden))


def tensors_with_experts(config: LatentExpertsConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint with experts, in the order of the model; shared experts are the last."""
    return with_experts(tensors(config), ExpertNames(), counts_of(config), config.dense)


def _gain(path: str, name: str, width: int) -> CheckpointTensor:
    return CheckpointTensor(path=f"{path}.gain", name=f"{name}.weight", shape=(width,))


def _attention(config: LatentConfig, ours: str, theirs: str) -> Iterator[CheckpointTensor]:
    """The matrices of one latent attention: those of the checkpoint cut by what their rows are for."""
    hidden, heads, lanes = config.hidden, config.heads, config.head_dim
    if config.q_lora is not None:
        shape = (config.q_lora, hidden)
        yield CheckpointTensor(path=f"{ours}.q_a", name=f"{theirs}.q_a_proj.weight", shape=shape)
        yield _gain(f"{ours}.q_norm", f"{theirs}.q_a_layernorm", config.q_lora)
    q = f"{theirs}.q_proj.weight" if config.q_lora is None else f"{theirs}.q_b_proj.weight"
    shape = (heads * lanes, config.q_lora or hidden)
    for name, first, count in (("q_nope", 0, config.nope), ("q_rope", config.nope, config.rope)):
        rows = HeadRows(heads=heads, rows=lanes, first=first, count=count, pairs=name == "q_rope")
        yield CheckpointTensor(path=f"{ours}.{name}", name=q, shape=shape, by_head=rows)
    kv, shape = f"{theirs}.kv_a_proj_with_mqa.weight", (config.kv_lora + config.rope, hidden)
    yield CheckpointTensor(path=f"{ours}.kv_a", name=kv, shape=shape, rows=(0, config.kv_lora))
    yield _gain(f"{ours}.kv_norm", f"{theirs}.kv_a_layernorm", config.kv_lora)
    rows = HeadRows(heads=1, rows=shape[0], first=config.kv_lora, count=config.rope, pairs=True)
    yield CheckpointTensor(path=f"{ours}.k_rope", name=kv, shape=shape, by_head=rows)
    both = config.nope + config.value
    name, shape = f"{theirs}.kv_b_proj.weight", (heads * both, config.kv_lora)
    absorb = HeadRows(heads=heads, rows=both, first=0, count=config.nope, matrices="inputs")
    yield CheckpointTensor(path=f"{ours}.absorb", name=name, shape=shape, by_head=absorb)
    expand = HeadRows(heads=heads, rows=both, first=config.nope, count=config.value, matrices="outputs")
    yield CheckpointTensor(path=f"{ours}.expand", name=name, shape=shape, by_head=expand)
    o = (hidden, heads * config.value)
    yield CheckpointTensor(path=f"{ours}.o", name=f"{theirs}.o_proj.weight", shape=o)
