"""A model family from one file: attention and FFN side by side on one norm, as GPT-J has them.

Importing it registers the family, as `lpu --extend toy_family` does; nothing else knows of it.
"""

from collections.abc import Iterator

from flax import nnx
from jax import Array

from models.config import TransformerConfig
from models.contract import ops
from models.decoder import Decoder
from models.families.family import HEAD, TABLE, CheckpointTensor, Family
from models.families.registry import register
from models.kv import KVFormat
from models.parts import Linear, Norm
from models.sources.json_keys import Keys


class ParallelLayer(nnx.Module):
    """x + attention(norm x) + ffn(norm x)."""

    def __init__(self, config: TransformerConfig, *, context: int) -> None:
        hidden, q, kv = config.hidden, config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.norm = Norm(hidden, config.eps)
        self.q, self.k, self.v = Linear(hidden, q), Linear(hidden, kv), Linear(hidden, kv)
        self.o = Linear(q, hidden)
        self.gate, self.up = Linear(hidden, config.ffn), Linear(hidden, config.ffn)
        self.down = Linear(config.ffn, hidden)
        self.head_dim = config.head_dim

    def __call__(
        self, x: Array, angles: Array, position: Array, k_cache: Array, v_cache: Array
    ) -> tuple[Array, Array, Array]:
        a = self.norm(x)
        q, k, v = (one(a).reshape(len(x), -1, self.head_dim) for one in (self.q, self.k, self.v))
        q, k, v = ops.rope(q, angles, position), ops.rope(k, angles, position), ops.round16(v)
        out, k_cache, v_cache = ops.attention(q, k, v, k_cache, v_cache, position)
        mixed = ops.glu(self.gate(a), self.up(a), activation="gelu")
        return ops.add(ops.add(x, self.o(out)), self.down(mixed)), k_cache, v_cache


class Parallel(Decoder):
    """A decoder of such layers."""

    def __init__(self, config: TransformerConfig, *, batch: int, context: int, kv: KVFormat = "fp16") -> None:
        super().__init__(ParallelLayer, config, batch=batch, context=context, kv=kv)


def read(keys: Keys, name: str) -> TransformerConfig:
    heads, hidden = keys.integer("n_head"), keys.integer("n_embd")
    return TransformerConfig(
        name=name,
        family="toy",
        layers=keys.integer("n_layer"),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=keys.integer("n_inner", 2 * hidden),
        vocab=keys.integer("vocab_size"),
        tied=False,
        rope_theta=10_000.0,
        eps=keys.number("layer_norm_epsilon", 1e-5),
        max_context=keys.integer("n_positions"),
        source="made up for tests",
    )


def tensors(config: TransformerConfig) -> Iterator[CheckpointTensor]:
    hidden, ffn = config.hidden, config.ffn
    shapes = dict.fromkeys("qkvo", (hidden, hidden))
    shapes |= {"gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
    yield CheckpointTensor(path=TABLE, name="wte", shape=(config.vocab, hidden))
    for i in range(config.layers):
        yield CheckpointTensor(path=f"layers.{i}.norm.gain", name=f"h.{i}.ln", shape=(hidden,))
        for name, shape in shapes.items():
            yield CheckpointTensor(path=f"layers.{i}.{name}", name=f"h.{i}.{name}", shape=shape)
    yield CheckpointTensor(path="norm.gain", name="ln_f", shape=(hidden,))
    yield CheckpointTensor(path=HEAD, name="lm_head", shape=(config.vocab, hidden))


register(
    Family(name="toy", module=Parallel, layer=ParallelLayer, model_types={"toy-j": read}, tensors=tensors)
)
