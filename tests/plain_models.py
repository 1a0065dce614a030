"""Decoders as people write them in NNX: of the vocabulary the ops that plain JAX lacks, the rest plain."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.contract import ops
from models.kv import KVCache, kv_shape
from models.parts import Embedding, Norm
from models.rope import rope_angles

HIDDEN, HEADS, KV, LANES, FFN, VOCAB, LAYERS = 64, 4, 2, 16, 96, 40, 2


def linear(k: int, n: int, **how: Any) -> nnx.Linear:
    return nnx.Linear(k, n, rngs=nnx.Rngs(0), **how)


def general(k: Any, n: Any, **how: Any) -> nnx.LinearGeneral:
    return nnx.LinearGeneral(k, n, rngs=nnx.Rngs(0), **how)


class Block(nnx.Module):
    """Plain matrices of several kinds; residual multipliers as in Granite."""

    def __init__(self, context: int) -> None:
        self.n1, self.n2 = Norm(HIDDEN, 1e-5), Norm(HIDDEN, 1e-5)
        self.q = general(HIDDEN, (HEADS, LANES), use_bias=False)
        self.kv = linear(HIDDEN, 2 * KV * LANES, use_bias=False)
        self.o = nnx.Param(jnp.zeros((HEADS, LANES, HIDDEN)))
        self.up = nnx.Param(jnp.zeros((2 * FFN, HIDDEN), jnp.bfloat16))
        self.down = nnx.Einsum("bf,fh->bh", (FFN, HIDDEN), (HIDDEN,), rngs=nnx.Rngs(0))
        self.drop = nnx.Dropout(0.1, deterministic=True)

    def attend(self, x: Any, angles: Any, position: Any, k_cache: Any, v_cache: Any) -> Any:
        a = self.n1(x)
        k, v = (part.reshape(-1, KV, LANES) for part in jnp.split(self.kv(a), 2, axis=-1))
        q, k = (ops.rope(part, angles, position) for part in (self.q(a), k))
        out, *cache = ops.attention(q, k, ops.round16(v), k_cache, v_cache, position)
        return jnp.einsum("bnh,nhd->bd", out.reshape(-1, HEADS, LANES), self.o[...]), *cache

    def feed(self, x: Any) -> Any:
        a, w = self.n2(x), self.up[...]
        gate, up = ((a @ part.T).astype(jnp.float32) for part in (w[:FFN], w[FFN:]))
        return self.drop(self.down(ops.glu(gate, up, activation="silu")))

    def __call__(self, x: Any, angles: Any, position: Any, k_cache: Any, v_cache: Any) -> Any:
        y, k_cache, v_cache = self.attend(x, angles, position, k_cache, v_cache)
        x = x + y * 0.22
        return ops.add(x, 0.22 * self.feed(x)), k_cache, v_cache


class Decoder(nnx.Module):
    """A list of blocks, the embedding's table as the head."""

    def __init__(self, *, batch: int, context: int, kv: Any) -> None:
        self.shape = kv_shape(LAYERS, batch, context, KV, LANES, kv)
        self.context = context
        self.embed, self.norm = Embedding(VOCAB, HIDDEN), Norm(HIDDEN, 1e-5)
        self.angles = nnx.Variable(jnp.asarray(self.constants()["angles"]))
        self.make(context)

    def make(self, context: int) -> None:
        self.blocks = nnx.List([Block(context) for _ in range(LAYERS)])

    def constants(self) -> dict[str, Any]:
        return {"angles": rope_angles(self.context, LANES, 10_000.0)}

    def cache_shape(self) -> Any:
        return self.shape

    def body(self, x: Any, position: Any, cache: Any) -> Any:
        ks, vs = [], []
        for i, block in enumerate(self.blocks):
            x, k, v = block(x, self.angles[...], position, cache.k[i], cache.v[i])
            ks.append(k)
            vs.append(v)
        return x, KVCache(tuple(ks), tuple(vs))

    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        x, cache = self.body(self.embed(tokens) * 12.0, position, cache)
        logits = (self.norm(x) @ self.embed.table[...].T).astype(jnp.float32) / 8.0
        return logits, ops.argmax(logits), cache


class Stacked(Decoder):
    """Blocks that vmap made, one after another by their index."""

    def make(self, context: int) -> None:
        @nnx.split_rngs(splits=LAYERS)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def create(rngs: Any) -> Block:
            return Block(context)

        self.stack = create(nnx.Rngs(0))

    def body(self, x: Any, position: Any, cache: Any) -> Any:
        graph, state = nnx.split(self.stack)
        ks, vs = [], []
        for i in range(LAYERS):
            block = nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state))
            x, k, v = block(x, self.angles[...], position, cache.k[i], cache.v[i])
            ks.append(k)
            vs.append(v)
        return x, KVCache(tuple(ks), tuple(vs))


class Scanned(Stacked):
    """The same by nnx.scan, with the caches of all layers in one array."""

    def cache_shape(self) -> Any:
        k, v = (jax.ShapeDtypeStruct((LAYERS, *part[0].shape), part[0].dtype) for part in self.shape[:2])
        both: Any = KVCache
        return both(k, v)

    def body(self, x: Any, position: Any, cache: Any) -> Any:
        angles = self.angles[...]

        @nnx.scan(in_axes=(nnx.Carry, 0, 0, 0), out_axes=(nnx.Carry, 0, 0))
        @nnx.remat
        def step(x: Any, block: Block, k_cache: Any, v_cache: Any) -> Any:
            return block(x, angles, position, k_cache, v_cache)

        x, k, v = step(x, self.stack, cache.k, cache.v)
        return x, KVCache(k, v)


class LoRA(Decoder):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        table = self.embed.table[...]
        merged = table + table  # parameters alone
        logits = (self.norm(self.embed(tokens)) @ merged.T).astype(jnp.float32)
        return logits, ops.argmax(logits), cache


class PerHead(Decoder):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        heads = self.embed(tokens).reshape(-1, 2, HIDDEN // 2)
        logits = (heads @ self.embed.table[...][:, : HIDDEN // 2].T)[:, 0]  # one matrix for each head
        return logits, ops.argmax(logits), cache


class Learned(Decoder):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        logits = self.embed(tokens)
        logits = logits * self.norm.gain[...]  # a vector
        return logits, ops.argmax(logits), cache


class Rounded(Decoder):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        logits = self.embed(tokens)
        logits = logits.astype(jnp.bfloat16).astype(jnp.float32)  # no rounding is dropped
        return logits, ops.argmax(logits), cache


class Widened(Decoder):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        x = self.embed(tokens)
        logits = x + self.norm(x)  # fp16
        return logits, ops.argmax(logits), cache
