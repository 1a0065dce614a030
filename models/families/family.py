"""The record of a model family: all that is known of it, stated in one file and registered.

Paths name our parameters (`layers.3.ffn.up.codes`). Every family calls its table of token vectors
`embed.table` and its output matrix `head`, which are one tensor in a tied model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx

from models.config import TransformerConfig
from models.sources.json_keys import Keys

TABLE, HEAD = "embed.table", "head"
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"  # of both in a Hugging Face checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTensor:
    """One tensor of a checkpoint: our path (of a matrix without `.codes`), its name and its shape there."""

    path: str
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model family. Functions that take a `config` get one whose `family` is this name.

    module: `module(config, batch=, context=, kv=)` makes what `models.step.build_step` takes.
    layer: `layer(config, context=)` makes one layer of a `models.decoder.Decoder`, by which a model larger
    than memory is computed; None if the layers differ or the module is no Decoder.
    model_types: how `config.json` of each Hugging Face model_type is read, given its keys and a name.
    tensors: those of a Hugging Face checkpoint, in the order of the model, each with the path it becomes.
    config: the record that holds the numbers.
    """

    name: str
    module: Callable[..., nnx.Module]
    layer: Callable[..., nnx.Module] | None
    model_types: Mapping[str, Callable[[Keys, str], TransformerConfig]]
    tensors: Callable[[Any], Iterable[CheckpointTensor]]
    config: type[TransformerConfig] = TransformerConfig
