"""Small models for the GPU's side, drafting and the prefix cache: opened once, their steps compiled once."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from lpu import api
from lpu.afd.gpu_side import GpuSide
from lpu.decode.decoders import reference_decode
from lpu.decode.generate import Decode, Generation, generate
from lpu.inputs.model import OpenModel
from models.config import TransformerConfig
from models.families.llama import Llama

VOCAB, CONTEXT = 61, 48
LITTLE = TransformerConfig(
    name="little", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=VOCAB, tied=False,
    rope_theta=1e4, eps=1e-5, max_context=64, source="made up for tests", ffn_down="fp16",
)  # fmt: skip


def little(*, batch: int, context: int, kv: Any) -> nnx.Module:
    return Llama(LITTLE, batch=batch, context=context, kv=kv)


@functools.cache
def opened(batch: int = 1, kv: str = "fp16", seed: int = 0, context: int = CONTEXT) -> OpenModel:
    return api.open_model(little, batch=batch, context=[context], kv=kv, weights=f"seed:{seed}")


@functools.cache
def _side(batch: int, kv: str, seed: int, copy: int) -> GpuSide:
    return GpuSide(opened(batch, kv, seed), chunk=8)


def side(batch: int = 1, kv: str = "fp16", seed: int = 0, copy: int = 0) -> GpuSide:
    """Shared by tests, with junk in all of its KV: nothing can be right by what lay there.

    copy: another one with KV of its own.
    """
    gpu, rng = _side(batch, kv, seed, copy), np.random.default_rng(1)
    for sequence in range(batch):
        k, v = (rng.integers(0, 0x38, part.shape) for part in gpu.kv(sequence, 0, CONTEXT))
        gpu.put_kv(sequence, 0, *(part.astype(np.uint8 if kv == "fp8" else np.float16) for part in (k, v)))
    return gpu


@functools.cache
def _reference(kv: str) -> Decode:
    return reference_decode(opened(1, kv))


def greedy(prompts: Sequence[Sequence[int]], count: int, kv: str = "fp16") -> list[Generation]:
    """What the reference makes of each prompt, alone and one token at a time."""
    return [generate(_reference(kv), [prompt], count, 1) for prompt in prompts]


def ids(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()
