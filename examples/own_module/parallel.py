"""A model of one's own: attention and FFN side by side on one norm, as in GPT-J and PaLM.

Its parts are Flax NNX modules, its equations are ops of `models/contract/ops.py`;
that is all that the compiler asks.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from models.contract import ops
from models.kv import KVCache, KVFormat, kv_shape
from models.parts import Embedding, Linear, Norm
from models.rope import rope_angles

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, LAYERS = 320, 8, 4, 40, 960, 400, 3


class Block(nnx.Module):
    """x + attention(norm x) + ffn(norm x)."""

    def __init__(self, context: int) -> None:
        self.norm = Norm(HIDDEN, 1e-5)
        self.q, self.o = Linear(HIDDEN, HEADS * HEAD_DIM), Linear(HEADS * HEAD_DIM, HIDDEN)
        self.k, self.v = Linear(HIDDEN, KV_HEADS * HEAD_DIM), Linear(HIDDEN, KV_HEADS * HEAD_DIM)
        self.gate, self.up, self.down = Linear(HIDDEN, FFN), Linear(HIDDEN, FFN), Linear(FFN, HIDDEN)

    def __call__(
        self, x: Array, angles: Array, position: Array, k_cache: Array, v_cache: Array
    ) -> tuple[Array, ...]:
        a = self.norm(x)
        q = ops.rope(self.q(a).reshape(-1, HEADS, HEAD_DIM), angles, position)
        k = ops.rope(self.k(a).reshape(-1, KV_HEADS, HEAD_DIM), angles, position)
        v = ops.round16(self.v(a).reshape(-1, KV_HEADS, HEAD_DIM))
        out, k_cache, v_cache = ops.attention(q, k, v, k_cache, v_cache, position)
        mixed = ops.glu(self.gate(a), self.up(a), activation="gelu")
        return ops.add(ops.add(x, self.o(out)), self.down(mixed)), k_cache, v_cache


class Parallel(nnx.Module):
    """Embedding, blocks, tied to nothing, a head: the signature is the one that `lpu` calls."""

    def __init__(self, *, batch: int, context: int, kv: KVFormat) -> None:
        self.shape = kv_shape(LAYERS, batch, context, KV_HEADS, HEAD_DIM, kv)
        self.context = context
        self.embed, self.norm, self.head = Embedding(VOCAB, HIDDEN), Norm(HIDDEN, 1e-5), Linear(HIDDEN, VOCAB)
        self.angles = nnx.Variable(jnp.asarray(self.constants()["angles"]))
        self.blocks = nnx.List([Block(context) for _ in range(LAYERS)])

    def constants(self) -> dict[str, np.ndarray]:
        return {"angles": rope_angles(self.context, HEAD_DIM, 10_000.0)}

    def cache_shape(self) -> KVCache:
        return self.shape

    def __call__(self, tokens: Array, position: Array, cache: KVCache) -> tuple[Array, Array, KVCache]:
        keys, values = list[Array](), list[Array]()
        with jax.named_scope("embed"):
            x = self.embed(tokens)
        for i, block in enumerate(self.blocks):
            with jax.named_scope(f"blocks.{i}"):
                x, k, v = block(x, self.angles[...], position, cache.k[i], cache.v[i])
            keys.append(k)
            values.append(v)
        with jax.named_scope("head"):
            logits = self.head(self.norm(x))
            token = ops.argmax(logits)
        return logits, token, KVCache(tuple(keys), tuple(values))
