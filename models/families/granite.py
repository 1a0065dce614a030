"""Granite (dense): a Llama with factors on embeddings, scores, residual sums and logits.

Source: transformers 5.24, models/granite.
"""

from functools import partial
from typing import Any

import numpy as np

from models.families.family import Family
from models.families.llama import Layer, Llama
from models.families.llama_checkpoint import ModelType, llama_biases, read, tensors
from models.sources.json_keys import Keys

NAME = "granite"


def factors(keys: Keys) -> dict[str, Any]:
    """The factors; logits are divided by theirs."""
    held = {
        "attention_scale": keys.number("attention_multiplier", 1.0),
        "embedding_scale": float(np.float32(keys.number("embedding_multiplier", 1.0))),
        "residual_scale": float(np.float32(keys.number("residual_multiplier", 1.0))),
    }
    return {**held, "logits_scale": 1.0 / keys.divisor("logits_scaling", 1.0)}


GRANITE = Family(
    name=NAME,
    module=Llama,
    layer=Layer,
    model_types={
        "granite": partial(
            read,
            ModelType(
                sizes=(32, 4096, 32, 11008, 32000),
                longest=2048,
                biased=llama_biases,
                more=factors,
                family=NAME,
            ),
        )
    },
    tensors=tensors,
)
