"""SmolLM3: a Llama in which every fourth layer has no RoPE. Source: transformers 5.24, models/smollm3."""

from functools import partial

from models.families.family import Family
from models.families.llama import Layer, Llama
from models.families.llama_checkpoint import ModelType, llama_biases, read, tensors
from models.sources.huggingface.keys import layer_types
from models.sources.json_keys import Keys

NAME = "smollm"
_INTERVAL = 4


def _kinds(keys: Keys, layers: int) -> tuple[str, ...]:
    """By `no_rope_layers`, whose 1 says that RoPE is there, or by the interval."""
    if keys.flag("use_sliding_window"):
        raise keys.error("use_sliding_window", True, "windows of layers without RoPE are not supported")
    layer_types(keys, layers)
    every = keys.integer("no_rope_layer_interval", _INTERVAL)
    turned = keys.get("no_rope_layers")
    if turned is None:
        turned = [int((layer + 1) % every != 0) for layer in range(layers)]
    if not isinstance(turned, list) or any(type(one) is not int or one not in (0, 1) for one in turned):
        raise keys.error("no_rope_layers", turned, "it is a list of 0 and 1")
    if len(turned) != layers:
        raise keys.error(
            "no_rope_layers", turned, f"names {len(turned)} layers, num_hidden_layers is {layers}"
        )
    return tuple("full" if one else "nope" for one in turned)


SMOLLM = Family(
    name=NAME,
    module=Llama,
    layer=Layer,
    model_types={
        "smollm3": partial(
            read,
            ModelType(
                sizes=(36, 2048, 16, 11008, 128_256),
                longest=32_768,
                kv_heads=4,
                biased=llama_biases,
                kinds_of=_kinds,
                theta=2e6,
                tied=True,
                family=NAME,
            ),
        )
    },
    tensors=tensors,
)
