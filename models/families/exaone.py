"""EXAONE 4: norms after attention and FFN alone, head norms, windows; without RoPE where all tokens are seen.

Source: transformers 5.24, models/exaone4.
"""

from functools import partial
from typing import Any

from models.families.family import Family
from models.families.llama import Layer, Llama
from models.families.llama_checkpoint import ModelType, read, tensors
from models.sources.huggingface.keys import alternating, layer_types
from models.sources.json_keys import Keys

NAME = "exaone"
_PERIOD = 4


def _kinds(keys: Keys, layers: int) -> tuple[str, ...]:
    """By `layer_types` or the pattern; without a window all layers see all, and have RoPE."""
    pattern = keys.get("sliding_window_pattern", _PERIOD)
    if keys.get("sliding_window", 4096) is None:
        layer_types(keys, layers)
        return ("full",) * layers
    if isinstance(pattern, str):
        if not pattern or set(pattern) - {"L", "G"}:
            raise keys.error("sliding_window_pattern", pattern, "it is a number, or letters L and G")
        keys.values.setdefault("layer_types", None)
        if keys.get("layer_types") is None:
            raise keys.error("sliding_window_pattern", pattern, "state layer_types beside it")
        pattern = _PERIOD
    kinds = alternating(keys, layers, pattern if type(pattern) is int and pattern > 0 else 1)
    return tuple("nope" if kind == "full" else kind for kind in kinds)


def _more(keys: Keys) -> dict[str, Any]:
    return {"norms": "post"}


EXAONE = Family(
    name=NAME,
    module=Llama,
    layer=Layer,
    model_types={
        "exaone4": partial(
            read,
            ModelType(
                sizes=(32, 4096, 32, 16384, 102_400),
                longest=2048,
                kv_heads=32,
                qk_norm=True,
                kinds_of=_kinds,
                window=4096,
                eps=1e-5,
                more=_more,
                family=NAME,
            ),
        )
    },
    tensors=tensors,
)
