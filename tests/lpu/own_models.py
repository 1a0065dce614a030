"""Modules of a user's own, good and bad, opened as `own_models:name` from this folder."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from models.catalog import catalog
from models.families.llama import Llama

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
