"""Modules of a user's own, good and bad, opened as `own_models:name` from this folder."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.catalog import catalog
from models.contract import ops
from models.families.llama import Llama
from models.kv import KVCache, kv_shape
from models.parts import Embedding, Linear, Norm
from models.rope import rope_angles

ONE_LAYER = dataclasses.replace(catalog("llama-tiny"), layers=1)
NUMBER = 3
HEAD_NORMS = dataclasses.replace(ONE_LAYER, qk_norm=True, head_dim=48)


def one_layer(*, batch: int, context: int, kv: Any) -> nnx.Module:
    return Llama(ONE_LAYER, batch=batch, context=context, kv=kv)


def head_norms(*, batch: int, context: int, kv: Any) -> nnx.Module:
    """Attention as in Qwen3."""
    return Llama(HEAD_NORMS, batch=batch, context=context, kv=kv)


class Sine(Llama):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        logits, token, cache = super().__call__(tokens, position, cache)
        with jax.named_scope("head.extra"):
            return jnp.sin(logits), token, cache  # the unsupported primitive


def sine(*, batch: int, context: int, kv: Any) -> nnx.Module:
    return Sine(ONE_LAYER, batch=batch, context=context, kv=kv)


def raising(*, batch: int, context: int, kv: Any) -> nnx.Module:
    raise RuntimeError("no such thing")


class OnlyLogits(Llama):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        logits, _, cache = super().__call__(tokens, position, cache)
        return logits, logits, cache


def only_logits(*, batch: int, context: int, kv: Any) -> nnx.Module:
    return OnlyLogits(ONE_LAYER, batch=batch, context=context, kv=kv)


class LivedIn(Llama):
    """What people leave in a module: state that decoding never reads, code whose results nobody reads."""

    def __init__(self, *, batch: int, context: int, kv: Any) -> None:
        super().__init__(ONE_LAYER, batch=batch, context=context, kv=kv)
        self.rngs = nnx.Rngs(0)
        self.drop = nnx.Dropout(0.1, deterministic=True, rngs=self.rngs)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))
        self.running = nnx.BatchStat(jnp.zeros(7))
        self.probe = Linear(ONE_LAYER.hidden, 40)
        self.average = nnx.BatchNorm(ONE_LAYER.hidden, rngs=self.rngs)

    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        self.calls[...] = self.calls[...] + 1
        self.probe(self.norm(self.embed(tokens)))
        logits, token, cache = nnx.remat(Llama.__call__)(self, tokens, position, cache)
        jnp.mean(jax.nn.softmax(logits))
        return self.drop(logits), token, cache


class Dropping(Llama):
    def __init__(self, *, batch: int, context: int, kv: Any) -> None:
        super().__init__(ONE_LAYER, batch=batch, context=context, kv=kv)
        self.drop = nnx.Dropout(0.1, rngs=nnx.Rngs(0))

    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        logits, token, cache = super().__call__(tokens, position, cache)
        dropped = self.drop(logits)
        return dropped, token, cache


class NoTuple(LivedIn):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        return super().__call__(tokens, position, cache)[0]


class NoCache(NoTuple):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        return tokens, tokens


class NoToken(LivedIn):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        logits, _, cache = super().__call__(tokens, position, cache)
        return logits, None, cache


class NoShape(nnx.Module):
    def __init__(self, *, batch: int, context: int, kv: Any) -> None:
        self.context = context


class NeedsRngs(LivedIn):
    def __init__(self, *, batch: int, context: int, kv: Any, rngs: Any) -> None:
        super().__init__(batch=batch, context=context, kv=kv)


class Branching(LivedIn):
    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        logits, token, cache = super().__call__(tokens, position, cache)
        if logits.sum() > 0:
            logits = -logits
        return logits, token, cache


def number(*, batch: int, context: int, kv: Any) -> Any:
    return 3


def of_batch(batch: int) -> Any:
    return LivedIn(batch=batch, context=16, kv="fp16")


class FusedBlock(nnx.Module):
    """A block whose q, k and v are parts of one product, and so are gate and up."""

    def __init__(self) -> None:
        self.norms = nnx.List([Norm(96, 1e-5), Norm(96, 1e-5)])
        self.qkv, self.o = Linear(96, 8 * 24), Linear(4 * 24, 96)
        self.up, self.down = Linear(96, 2 * 160), Linear(160, 96)

    def attend(self, x: Any, angles: Any, position: Any, cache: Any) -> Any:
        """The attention's part of the residual, and the cache."""
        q, k, v = jnp.split(self.qkv(self.norms[0](x)), [96, 144], axis=-1)
        q, k = (ops.rope(one.reshape(x.shape[0], -1, 24), angles, position) for one in (q, k))
        v = ops.round16(v.reshape(x.shape[0], -1, 24))
        out, *left = ops.attention(q, k, v, cache[0], cache[1], position)
        return self.o(out), left

    def gated(self, x: Any) -> Any:
        """Gate and up as the module has them."""
        both = self.up(self.norms[1](x))
        return ops.glu(both[:, :160], both[:, 160:], activation="silu")


class CrossedBlock(FusedBlock):
    def gated(self, x: Any) -> Any:
        both = self.up(self.norms[1](x))
        return ops.glu(both[:, 160:], both[:, :160], activation="silu")


class Fused(nnx.Module):
    """One such block between an embedding and a head."""

    block = FusedBlock

    def __init__(self, *, batch: int, context: int, kv: Any) -> None:
        self.shape, self.context = kv_shape(1, batch, context, 2, 24, kv), context
        self.embed, self.norm, self.head = Embedding(120, 96), Norm(96, 1e-5), Linear(96, 120)
        self.angles = nnx.Variable(jnp.asarray(self.constants()["angles"]))
        self.only = self.block()

    def constants(self) -> Any:
        return {"angles": rope_angles(self.context, 24, 10_000.0)}

    def cache_shape(self) -> Any:
        return self.shape

    def __call__(self, tokens: Any, position: Any, cache: Any) -> Any:
        x = self.embed(tokens)
        out, (k, v) = self.only.attend(x, self.angles[...], position, (cache.k[0], cache.v[0]))
        x = ops.add(x, out)
        x = ops.add(x, self.only.down(self.only.gated(x)))
        logits = self.head(self.norm(x))
        return logits, ops.argmax(logits), KVCache((k,), (v,))


class Crossed(Fused):
    block = CrossedBlock
