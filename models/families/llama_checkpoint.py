"""What the Hugging Face folders of the Llama family mean: the keys of their config.json, and their tensors.

Source of defaults and names: transformers 5.24, configuration_ and modeling_ of the model_types here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from models.config import DEFAULT_FAMILY, MATRICES, TransformerConfig
from models.families.family import EMBEDDING, HEAD, LM_HEAD, TABLE, CheckpointTensor
from models.sources.huggingface.keys import (
    Kinds,
    activation_of,
    all_windows,
    alternating,
    no_windows,
    used_windows,
    windows_of,
)
from models.sources.huggingface.rope import KINDS, rope_of
from models.sources.json_keys import Keys

ATTENTION, FFN = MATRICES[:4], MATRICES[4:]
_SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
_FUSED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelType:
    """What the `config.json` of one Hugging Face model_type means by what it says or leaves out.

    sizes: of _SIZES, where one is absent; longest: max_position_embeddings likewise. kv_heads: likewise; None
    is as many as the heads. head_dim: likewise; None is hidden / heads. biased: which matrices have a bias.
    kinds_of: of the layers; window: where the key is absent. eps: rms_norm_eps likewise, theta: rope_theta,
    tied: tie_word_embeddings, activation: its key and what it is. more: other numbers of the model. original:
    original_max_position_embeddings likewise, and it must agree with the table of RoPE. kinds: of RoPE,
    aliases: their other names; partial: whether part of a head can be turned. fused: whether q, k and v, and
    gate and up, are one tensor.
    """

    sizes: tuple[int, int, int, int, int]
    longest: int
    kv_heads: int | None = None
    head_dim: int | None = None
    qk_norm: bool = False
    biased: Callable[[Keys], tuple[str, ...]] = lambda keys: ()
    kinds_of: Callable[[Keys, int], Kinds] = no_windows
    window: int | None = None
    eps: float = 1e-6
    theta: float | None = None
    tied: bool = False
    activation: tuple[str, str] = ("hidden_act", "silu")
    more: Callable[[Keys], dict[str, Any]] = lambda keys: {}
    family: str = DEFAULT_FAMILY
    original: int | None = None
    kinds: tuple[str, ...] = KINDS
    partial: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    fused: bool = False


def llama_biases(keys: Keys) -> tuple[str, ...]:
    """By two keys: all matrices of attention, all of the FFN."""
    attention = ATTENTION if keys.flag("attention_bias") else ()
    return attention + (FFN if keys.flag("mlp_bias") else ())


def _qwen3_biases(keys: Keys) -> tuple[str, ...]:
    return ATTENTION if keys.flag("attention_bias") else ()


def _seed_biases(keys: Keys) -> tuple[str, ...]:
    inner = ATTENTION[:3] if keys.flag("attention_bias", True) else ()
    return (
        *inner,
        *(ATTENTION[3:] if keys.flag("attention_out_bias") else ()),
        *(FFN if keys.flag("mlp_bias") else ()),
    )


def _qwen2_biases(keys: Keys) -> tuple[str, ...]:
    keys.get("attention_bias")  # whatever it says
    return ATTENTION[:3]


MODEL_TYPES = {
    "llama": ModelType(sizes=(32, 4096, 32, 11008, 32000), longest=2048, biased=llama_biases),
    "mistral": ModelType(
        sizes=(32, 4096, 32, 14336, 32000), longest=131_072, kv_heads=8, kinds_of=all_windows, window=4096
    ),
    "phi3": ModelType(
        sizes=(32, 3072, 32, 8192, 32064),
        longest=4096,
        kinds_of=all_windows,
        eps=1e-5,
        original=4096,
        kinds=("default", "longrope"),
        partial=True,
        aliases={"su": "longrope", "yarn": "longrope"},
        fused=True,
    ),
    "qwen2": ModelType(
        sizes=(32, 4096, 32, 22016, 151_936),
        longest=32_768,
        kv_heads=32,
        biased=_qwen2_biases,
        kinds_of=used_windows,
        window=4096,
    ),
    "qwen3": ModelType(
        sizes=(32, 4096, 32, 22016, 151_936),
        longest=32_768,
        kv_heads=32,
        head_dim=128,
        qk_norm=True,
        biased=_qwen3_biases,
        kinds_of=used_windows,
        window=4096,
    ),
    "ministral": ModelType(
        sizes=(32, 4096, 32, 14336, 32000),
        longest=131_072,
        kv_heads=8,
        kinds_of=partial(alternating, period=1 << 30),
        window=4096,
    ),
    "seed_oss": ModelType(
        sizes=(64, 4096, 80, 27648, 155_136), longest=524_288, kv_heads=8, head_dim=128, biased=_seed_biases
    ),
}


def read(kind: ModelType, keys: Keys, name: str) -> TransformerConfig:
    """The numbers of a `config.json`; what the module would compute otherwise is a WeightError."""
    layers, hidden, heads, ffn, vocab = (
        keys.stated(key, size) for key, size in zip(_SIZES, kind.sizes, strict=True)
    )
    longest = keys.stated("max_position_embeddings", kind.longest)
    kv_heads = heads if keys.get("num_key_value_heads", kind.kv_heads) is None else kind.kv_heads
    head_dim = keys.integer("head_dim", kind.head_dim or hidden // heads)
    original = keys.get("original_max_position_embeddings", kind.original) if kind.original else None
    if original is not None:
        keys.values["original_max_position_embeddings"] = original  # stated or not, it is there
    more = kind.more(keys)
    tables = keys.get("rope_parameters") or {}, keys.get("rope_scaling") or {}
    if kind.theta and keys.get("rope_theta") is None and not any("rope_theta" in one for one in tables):
        keys.values["rope_theta"] = kind.theta
    window, kinds = windows_of(keys, longest, kind.kinds_of(keys, layers), default=kind.window)
    rope = rope_of(keys, longest, head_dim, kinds=kind.kinds, aliases=kind.aliases, partial=kind.partial)
    return TransformerConfig(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=keys.integer("num_key_value_heads", kv_heads),
        head_dim=head_dim,
        ffn=ffn,
        vocab=vocab,
        tied=keys.flag("tie_word_embeddings", kind.tied),
        rope_theta=rope.theta,
        eps=keys.number("rms_norm_eps", kind.eps),
        max_context=longest,
        source=f"config.json of the Hugging Face folder {name}",
        qk_norm=kind.qk_norm,
        rope_scaling=rope.scaling,
        activation=activation_of(keys, *kind.activation),
        biased=kind.biased(keys),
        turned_lanes=rope.turned_lanes,
        window=window,
        kinds=kinds,
        fused=kind.fused,
        family=kind.family,
        **more,
    )


READERS = {name: partial(read, kind) for name, kind in MODEL_TYPES.items()}
_NORMS = {
    "pre": ("input_layernorm", None, "post_attention_layernorm", None),
    "post": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "both": (
        *("input_layernorm", "post_attention_layernorm"),
        *("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
}
"""Of attention and of the FFN, the norms before and after each."""


def tensors(config: TransformerConfig, plus: float = 0.0) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model. plus: what is added to its gains."""
    hidden = config.hidden
    inputs = {"o": config.heads * config.head_dim, "down": config.ffn}

    turned = None if config.turned_lanes is None else (config.head_dim, config.turned_lanes)

    def gain(path: str, name: str, width: int, lanes: tuple[int, int] | None = None) -> CheckpointTensor:
        path, name = f"{path}.gain", f"{name}.weight"
        return CheckpointTensor(path=path, name=name, shape=(width,), lanes=lanes, plus=plus)

    def norm(path: str, name: str | None, layer: int) -> Iterator[CheckpointTensor]:
        if name is not None:
            yield gain(path, f"model.layers.{layer}.{name}", hidden)

    def matrix(ours: str, theirs: str, name: str) -> Iterator[CheckpointTensor]:
        out, fused = config.width_of(name), _FUSED.get(name) if config.fused else None
        group = [one for one in MATRICES if _FUSED.get(one) == fused] if fused else [name]
        first = sum(map(config.width_of, group[: group.index(name)]))
        rows = (first, out) if fused else None
        every = sum(map(config.width_of, group))
        lanes = turned if name in ("q", "k") else None
        theirs = f"{theirs}.{fused or name}_proj"
        shape = (every, inputs.get(name, hidden))
        yield CheckpointTensor(
            path=f"{ours}.{name}", name=f"{theirs}.weight", shape=shape, rows=rows, lanes=lanes
        )
        if name in config.biased:
            yield CheckpointTensor(
                path=f"{ours}.{name}.bias", name=f"{theirs}.bias", shape=(every,), rows=rows, lanes=lanes
            )

    yield CheckpointTensor(path=TABLE, name=EMBEDDING, shape=(config.vocab, hidden))
    for i in range(config.layers):
        ours, theirs = f"layers.{i}.attention", f"model.layers.{i}.self_attn"
        before, after, ffn_before, ffn_after = _NORMS[config.norms]
        yield from norm(f"{ours}.norm", before, i)
        for name in ATTENTION:
            yield from matrix(ours, theirs, name)
        for name in ("q_norm", "k_norm") if config.qk_norm else ():
            width = config.width_of(name[0]) if config.whole_qk_norm else config.head_dim
            yield gain(f"{ours}.{name}", f"{theirs}.{name}", width, turned)
        if config.sinks:
            yield CheckpointTensor(path=f"{ours}.sinks", name=f"{theirs}.sinks", shape=(config.heads,))
        yield from norm(f"{ours}.post", after, i)
        ours, theirs = f"layers.{i}.ffn", f"model.layers.{i}.mlp"
        yield from norm(f"{ours}.norm", ffn_before, i)
        for name in FFN:
            yield from matrix(ours, theirs, name)
        yield from norm(f"{ours}.post", ffn_after, i)
    yield gain("norm", "model.norm", hidden)
    head = EMBEDDING if config.tied else LM_HEAD
    yield CheckpointTensor(path=HEAD, name=head, shape=(config.vocab, hidden))
