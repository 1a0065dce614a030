"""What the Hugging Face folders of the Llama family mean: the keys of their config.json, and their tensors.

Source of defaults and names: transformers 5.24, configuration_ and modeling_ of the model_types here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from models.config import MATRICES, TransformerConfig
from models.families.family import EMBEDDING, HEAD, LM_HEAD, TABLE, CheckpointTensor
from models.sources.huggingface_keys import activation_of, layer_types, window_of, windowed_layers
from models.sources.huggingface_rope import KINDS, rope_of
from models.sources.json_keys import Keys

ATTENTION, FFN = MATRICES[:4], MATRICES[4:]
_SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
_FUSED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelType:
    """What the `config.json` of one Hugging Face model_type means by what it says or leaves out.

    sizes: of _SIZES, where one is absent; longest: max_position_embeddings likewise. kv_heads: likewise; None
    is as many as the heads. head_dim: likewise; None is hidden / heads. biased: which matrices have a bias.
    windowed: how many layers the window is for; window: where the key is absent. eps: rms_norm_eps likewise.
    original: original_max_position_embeddings likewise, and it must agree with the table of RoPE. kinds: of
    RoPE, aliases: their other names; partial: whether part of a head can be turned. fused: whether q, k and
    v, and gate and up, are one tensor.
    """

    sizes: tuple[int, int, int, int, int]
    longest: int
    kv_heads: int | None = None
    head_dim: int | None = None
    qk_norm: bool = False
    biased: Callable[[Keys], tuple[str, ...]] = lambda keys: ()
    windowed: Callable[[Keys, int], int] = lambda keys, layers: 0
    window: int | None = None
    eps: float = 1e-6
    original: int | None = None
    kinds: tuple[str, ...] = KINDS
    partial: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    fused: bool = False


def _every_layer(keys: Keys, layers: int) -> int:
    layer_types(keys, layers)
    return layers


def _none(keys: Keys, layers: int) -> int:
    layer_types(keys, layers)
    return 0


def _llama_biases(keys: Keys) -> tuple[str, ...]:
    attention = ATTENTION if keys.flag("attention_bias") else ()
    return attention + (FFN if keys.flag("mlp_bias") else ())


def _qwen3_biases(keys: Keys) -> tuple[str, ...]:
    return ATTENTION if keys.flag("attention_bias") else ()


def _qwen2_biases(keys: Keys) -> tuple[str, ...]:
    keys.get("attention_bias")  # whatever it says
    return ATTENTION[:3]


MODEL_TYPES = {
    "llama": ModelType(
        sizes=(32, 4096, 32, 11008, 32000), longest=2048, biased=_llama_biases, windowed=_none
    ),
    "mistral": ModelType(
        sizes=(32, 4096, 32, 14336, 32000), longest=131_072, kv_heads=8, windowed=_every_layer, window=4096
    ),
    "phi3": ModelType(
        sizes=(32, 3072, 32, 8192, 32064),
        longest=4096,
        windowed=_every_layer,
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
        windowed=windowed_layers,
        window=4096,
    ),
    "qwen3": ModelType(
        sizes=(32, 4096, 32, 22016, 151_936),
        longest=32_768,
        kv_heads=32,
        head_dim=128,
        qk_norm=True,
        biased=_qwen3_biases,
        windowed=windowed_layers,
        window=4096,
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
        tied=keys.flag("tie_word_embeddings"),
        rope_theta=rope.theta,
        eps=keys.number("rms_norm_eps", kind.eps),
        max_context=longest,
        source=f"config.json of the Hugging Face folder {name}",
        qk_norm=kind.qk_norm,
        rope_scaling=rope.scaling,
        activation=activation_of(keys),
        biased=kind.biased(keys),
        turned_lanes=rope.turned_lanes,
        window=window_of(keys, longest, default=kind.window, layers=kind.windowed(keys, layers)),
        fused=kind.fused,
    )


READERS = {name: partial(read, kind) for name, kind in MODEL_TYPES.items()}


def tensors(config: TransformerConfig) -> Iterator[CheckpointTensor]:
    """The tensors of a checkpoint, in the order of the model."""
    hidden = config.hidden
    inputs = {"o": config.heads * config.head_dim, "down": config.ffn}

    turned = None if config.turned_lanes is None else (config.head_dim, config.turned_lanes)

    def gain(path: str, name: str, width: int, lanes: tuple[int, int] | None = None) -> CheckpointTensor:
        return CheckpointTensor(path=f"{path}.gain", name=f"{name}.weight", shape=(width,), lanes=lanes)

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
        yield gain(f"{ours}.norm", f"model.layers.{i}.input_layernorm", hidden)
        for name in ATTENTION:
            yield from matrix(ours, theirs, name)
        for name in ("q_norm", "k_norm") if config.qk_norm else ():
            yield gain(f"{ours}.{name}", f"{theirs}.{name}", config.head_dim, turned)
        ours, theirs = f"layers.{i}.ffn", f"model.layers.{i}.mlp"
        yield gain(f"{ours}.norm", f"model.layers.{i}.post_attention_layernorm", hidden)
        for name in FFN:
            yield from matrix(ours, theirs, name)
    yield gain("norm", "model.norm", hidden)
    head = EMBEDDING if config.tied else LM_HEAD
    yield CheckpointTensor(path=HEAD, name=head, shape=(config.vocab, hidden))
