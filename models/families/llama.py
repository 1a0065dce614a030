"""The Llama family in the op vocabulary: Llama 2 and 3, Mistral, Qwen3 (dense).

These modules are the reference that every compiled program is held against, bit by bit, and what the compiler
traces. What differs between the Hugging Face model_types is a `ModelType` each. Source of their defaults and
names: transformers 5.23, configuration_ and modeling_{llama,mistral,qwen3}.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float, Float32, Int32, UInt8

from models.config import DEFAULT_FAMILY, TransformerConfig
from models.contract import ops
from models.decoder import Decoder
from models.families.family import EMBEDDING, HEAD, LM_HEAD, TABLE, CheckpointTensor, Family
from models.kv import KVFormat
from models.parts import Linear, Norm
from models.sources.huggingface_keys import activation_of, refuse_unlike_llama, refuse_window, rope_of
from models.sources.json_keys import Keys

Positions = Int32[Array, " batch"]
LayerKV = (
    Float[Array, "sequences tokens kv_heads head_dim"] | UInt8[Array, "sequences tokens kv_heads head_dim"]
)
Angles = Int32[Array, "context 2 pairs"] | Float32[Array, "context 2 pairs"]


class Attention(nnx.Module):
    """Grouped-query attention with RoPE, its norm and its residual."""

    def __init__(self, config: TransformerConfig, *, context: int) -> None:
        q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.norm = Norm(config.hidden, config.eps)
        self.q = Linear(config.hidden, q)
        self.k = Linear(config.hidden, kv)
        self.v = Linear(config.hidden, kv)
        self.o = Linear(q, config.hidden)
        if config.qk_norm:
            self.q_norm = Norm(config.head_dim, config.eps)
            self.k_norm = Norm(config.head_dim, config.eps)
        self.config = config
        self.fraction_bits = ops.fraction_bits(context)

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Angles,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float32[Array, "batch hidden"], LayerKV, LayerKV]:
        """One token per row; the caches come back with it appended."""
        config, a = self.config, self.norm(x)
        q = self.q(a).reshape(-1, config.heads, config.head_dim)
        k = self.k(a).reshape(-1, config.kv_heads, config.head_dim)
        v = self.v(a).reshape(-1, config.kv_heads, config.head_dim)
        if config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        out, k_cache, v_cache = ops.attention(
            ops.rope(q, angles, position),
            ops.rope(k, angles, position),
            ops.round16(v),
            k_cache,
            v_cache,
            position,
            fraction_bits=self.fraction_bits,
        )
        return ops.add(x, self.o(out)), k_cache, v_cache


class FeedForward(nnx.Module):
    """The gated FFN with its norm and its residual."""

    def __init__(self, config: TransformerConfig) -> None:
        self.norm = Norm(config.hidden, config.eps)
        self.gate = Linear(config.hidden, config.ffn)
        self.up = Linear(config.hidden, config.ffn)
        self.down = Linear(config.ffn, config.hidden)
        self.rounds = (config.ffn_down == "fp8", config.ffn_up == "fp16")
        self.activation = config.activation

    def __call__(self, x: Float32[Array, "batch hidden"]) -> Float32[Array, "batch hidden"]:
        """One vector per sequence."""
        a = self.norm(x)
        if self.rounds[0]:
            a = ops.round8(a)
        y = self.down(ops.glu(self.gate(a), self.up(a), activation=self.activation))
        return ops.add(x, ops.round16(y) if self.rounds[1] else y)


class Layer(nnx.Module):
    """Attention, then FFN."""

    def __init__(self, config: TransformerConfig, *, context: int) -> None:
        self.attention = Attention(config, context=context)
        self.ffn = FeedForward(config)

    def __call__(
        self,
        x: Float32[Array, "batch hidden"],
        angles: Angles,
        position: Positions,
        k_cache: LayerKV,
        v_cache: LayerKV,
    ) -> tuple[Float32[Array, "batch hidden"], LayerKV, LayerKV]:
        """One token per row; the caches come back with it appended."""
        with jax.named_scope("attention"):
            x, k_cache, v_cache = self.attention(x, angles, position, k_cache, v_cache)
        with jax.named_scope("ffn"):
            return self.ffn(x), k_cache, v_cache


class Llama(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: TransformerConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        super().__init__(Layer, config, batch=batch, context=context, kv=kv)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelType:
    """What the `config.json` of one Hugging Face model_type means by what it says or leaves out.

    head_dim: where it is absent; None: hidden / heads. own_kv_heads: KV heads must be stated, otherwise they
    are as many as the heads. windowed: whether `sliding_window` counts; window: where it is absent.
    """

    qk_norm: bool = False
    head_dim: int | None = None
    own_kv_heads: bool = True
    windowed: Callable[[Keys], bool] = lambda keys: False
    window: int | None = None


MODEL_TYPES = {
    "llama": ModelType(own_kv_heads=False),
    "mistral": ModelType(windowed=lambda keys: True, window=4096),
    "qwen3": ModelType(qk_norm=True, head_dim=128, windowed=lambda keys: keys.flag("use_sliding_window")),
}


def _read(kind: ModelType, keys: Keys, name: str) -> TransformerConfig:
    """The numbers of a `config.json`; what this module would compute otherwise is a WeightError."""
    refuse_unlike_llama(keys)
    if kind.windowed(keys):
        refuse_window(keys, kind.window)
    heads, hidden = keys.integer("num_attention_heads"), keys.integer("hidden_size")
    theta, scaling = rope_of(keys)
    return TransformerConfig(
        name=name,
        layers=keys.integer("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=keys.integer("num_key_value_heads", None if kind.own_kv_heads else heads),
        head_dim=keys.integer("head_dim", kind.head_dim or hidden // max(heads, 1)),
        ffn=keys.integer("intermediate_size"),
        vocab=keys.integer("vocab_size"),
        tied=keys.flag("tie_word_embeddings"),
        rope_theta=theta,
        eps=keys.number("rms_norm_eps"),
        max_context=keys.integer("max_position_embeddings"),
        source=f"config.json of the Hugging Face folder {name}",
        qk_norm=kind.qk_norm,
        rope_scaling=scaling,
        activation=activation_of(keys),
    )


def _tensors(config: TransformerConfig) -> Iterator[CheckpointTensor]:
    hidden, ffn = config.hidden, config.ffn
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    attention = {"q": (q, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, q)}
    feed_forward = {"gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}

    def one(path: str, name: str, *shape: int) -> CheckpointTensor:
        return CheckpointTensor(path=path, name=f"{name}.weight", shape=shape)

    yield CheckpointTensor(path=TABLE, name=EMBEDDING, shape=(config.vocab, hidden))
    for i in range(config.layers):
        ours, theirs = f"layers.{i}.attention", f"model.layers.{i}.self_attn"
        yield one(f"{ours}.norm.gain", f"model.layers.{i}.input_layernorm", hidden)
        for name, shape in attention.items():
            yield one(f"{ours}.{name}", f"{theirs}.{name}_proj", *shape)
        for name in ("q_norm", "k_norm") if config.qk_norm else ():
            yield one(f"{ours}.{name}.gain", f"{theirs}.{name}", config.head_dim)
        ours, theirs = f"layers.{i}.ffn", f"model.layers.{i}.mlp"
        yield one(f"{ours}.norm.gain", f"model.layers.{i}.post_attention_layernorm", hidden)
        for name, shape in feed_forward.items():
            yield one(f"{ours}.{name}", f"{theirs}.{name}_proj", *shape)
    yield one("norm.gain", "model.norm", hidden)
    head = EMBEDDING if config.tied else LM_HEAD
    yield CheckpointTensor(path=HEAD, name=head, shape=(config.vocab, hidden))


LLAMA = Family(
    name=DEFAULT_FAMILY,
    module=Llama,
    layer=Layer,
    model_types={name: partial(_read, kind) for name, kind in MODEL_TYPES.items()},
    tensors=_tensors,
)
