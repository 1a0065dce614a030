"""OLMo 2 and 3: norms after attention and FFN alone, queries and keys normed over all heads together.

OLMo 3 has a window on three layers of four, whose RoPE is not scaled. Source: transformers 5.24, models/olmo2
and models/olmo3.
"""

from functools import partial
from typing import Any

from models.families.family import Family
from models.families.llama import Layer, Llama
from models.families.llama_checkpoint import ATTENTION, ModelType, read, tensors
from models.sources.huggingface.keys import alternating
from models.sources.huggingface.rope import by_kind
from models.sources.json_keys import Keys

NAME = "olmo"
_THETA, _PERIOD = 500_000.0, 4


def _biases(keys: Keys) -> tuple[str, ...]:
    return ATTENTION if keys.flag("attention_bias") else ()


def _olmo2(keys: Keys) -> dict[str, Any]:
    return {"norms": "post", "whole_qk_norm": True}


def _olmo3(keys: Keys) -> dict[str, Any]:
    return {**_olmo2(keys), "window_theta": by_kind(keys, local=None, local_theta=_THETA)}


_ALIKE: dict[str, Any] = {
    "sizes": (32, 4096, 32, 11008, 50304),
    "longest": 2048,
    "eps": 1e-5,
    "qk_norm": True,
    "biased": _biases,
    "family": NAME,
}
MODEL_TYPES = {
    "olmo2": ModelType(more=_olmo2, **_ALIKE),
    "olmo3": ModelType(
        kinds_of=partial(alternating, period=_PERIOD), window=4096, theta=_THETA, more=_olmo3, **_ALIKE
    ),
}

OLMO = Family(
    name=NAME,
    module=Llama,
    layer=Layer,
    model_types={name: partial(read, kind) for name, kind in MODEL_TYPES.items()},
    tensors=tensors,
)
