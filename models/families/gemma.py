"""Gemma 2 and 3 (text): norms before and after attention and FFN, windows on most layers, caps or head norms.

Gains are stored less 1, embeddings are scaled by the root of the width; layers with a window have a RoPE base
of their own in Gemma 3. Source: transformers 5.24, models/gemma2 and models/gemma3.
"""

from functools import partial
from typing import Any

import numpy as np

from models.families.family import Family
from models.families.llama import Layer, Llama
from models.families.llama_checkpoint import ModelType, read, tensors
from models.sources.huggingface.keys import alternating
from models.sources.huggingface.rope import by_kind
from models.sources.json_keys import Keys

NAME = "gemma"
_LOCAL_THETA, _PERIOD = 10_000.0, 6  # Gemma 3, where the keys are absent


def _both(keys: Keys) -> dict[str, Any]:
    """The numbers that both have. Attention has a cap in Gemma 2 alone; Gemma 3 reads its key, no more."""
    keys.get("hidden_act")  # whatever it says
    is_2 = keys.text("model_type") == "gemma2"
    caps = {"attn_logit_softcapping": ("attention_cap", 50.0), "final_logit_softcapping": ("logit_cap", 30.0)}
    held: dict[str, Any] = {
        "norms": "both",
        "attention_scale": keys.integer("query_pre_attn_scalar", 256) ** -0.5,
    }
    for key, (name, default) in caps.items():
        stated = keys.get(key, default if is_2 else None) is not None
        if stated and (is_2 or name == "logit_cap"):
            held[name] = keys.number(key, default)
    return held | {"embedding_scale": _root(keys.stated("hidden_size", 2304))}


def _root(width: int) -> float:
    return float(np.float32(width**0.5))


def _gemma3(keys: Keys) -> dict[str, Any]:
    theta = by_kind(keys, local="rope_local_base_freq", local_theta=_LOCAL_THETA)
    return {**_both(keys), "window_theta": theta}


def _gemma3_kinds(keys: Keys, layers: int) -> tuple[str, ...]:
    return alternating(keys, layers, keys.integer("sliding_window_pattern", _PERIOD))


_ALIKE: dict[str, Any] = {
    "sizes": (26, 2304, 8, 9216, 256_000),
    "kv_heads": 4,
    "head_dim": 256,
    "window": 4096,
    "tied": True,
    "activation": ("hidden_activation", "gelu_pytorch_tanh"),
    "family": NAME,
}
MODEL_TYPES = {
    "gemma2": ModelType(longest=8192, kinds_of=partial(alternating, period=2), more=_both, **_ALIKE),
    "gemma3_text": ModelType(
        longest=131_072, kinds_of=_gemma3_kinds, more=_gemma3, theta=1e6, qk_norm=True, **_ALIKE
    ),
}

GEMMA = Family(
    name=NAME,
    module=Llama,
    layer=Layer,
    model_types={name: partial(read, kind) for name, kind in MODEL_TYPES.items()},
    tensors=partial(tensors, plus=1.0),
)
