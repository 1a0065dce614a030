"""Small models for the GPU's side, drafting and the prefix cache: opened once, their steps compiled once."""

import functools
from typing import Any

import numpy as np
from flax import nnx

from lpu import api
from lpu.decoders import reference_decode
from lpu.generate import Decode
from lpu.gpu_side import GpuSide
from lpu.load import OpenModel
from models.config import TransformerConfig
from models.llama import Llama

VOCAB, CONTEXT = 61, 48
LITTLE = TransformerConfig(
    name="little", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=VOCAB, tied=False,
    rope_theta=1e4, eps=1e-5, max_context=64, source="made up for tests",
)  # fmt: skip


def little(*, batch: int, context: int, kv: Any) -> nnx.Module:
    return Llama(LITTLE, batch=batch, context=context, kv=kv)


@functools.cache
def opened(batch: int = 1, kv: str = "fp16", seed: int = 0, context: int = CONTEXT) -> OpenModel:
    return api.open_model(little, batch=batch, context=[context], kv=kv, weights=f"seed:{seed}")


@functools.cache
def side(batch: int = 1, kv: str = "fp16", seed: int = 0, copy: int = 0) -> GpuSide:
    """Shared by tests: what one leaves in the KV must not matter to the next. copy: with KV of its own."""
    return GpuSide(opened(batch, kv, seed), chunk=8)


@functools.cache
def reference(batch: int = 1, kv: str = "fp16") -> Decode:
    """The reference, one token at a time; shared as the sides are."""
    return reference_decode(opened(batch, kv))


def ids(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()
