"""Modules of a user's own, good and bad, opened as `own_models:name` from this folder."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.catalog import catalog
from models.families.llama import Llama
from models.parts import Linear

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
