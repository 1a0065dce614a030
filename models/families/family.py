"""The record of a model family: all that is known of it, stated in one file and registered.

Paths name our parameters (`layers.3.ffn.up.codes`). Every family calls its table of token vectors
`embed.table` and its output matrix `head`, which are one tensor in a tied model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Shaped

from models.config import TransformerConfig
from models.rope import lane_order
from models.sources.json_keys import Keys

TABLE, HEAD = "embed.table", "head"
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"  # of both in a Hugging Face checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTensor:
    """One tensor of a checkpoint: our path (of a matrix without `.codes`), its name and its shape there.

    rows: (first, how many) of its rows are ours; None: all. lanes: of rows that lie head by head, (lanes of a
    head, those that RoPE turns): they are put in the order of `models.rope.lane_order`. plus: what is
    added to all, for a gain that is stored less 1.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    lanes: tuple[int, int] | None = None
    plus: float = 0.0

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The shape of what is taken of it."""
        return self.shape if self.rows is None else (self.rows[1], *self.shape[1:])

    def take(self, values: Shaped[np.ndarray, "*axes"]) -> Shaped[np.ndarray, "*own"]:
        """The rows that are ours, in our order; a view where that is possible."""
        values = values + np.float32(self.plus) if self.plus else values
        if self.rows is not None:
            values = values[self.rows[0] : sum(self.rows)]
        if self.lanes is None:
            return values
        order = lane_order(*self.lanes)
        heads = values.reshape(-1, self.lanes[0], *values.shape[1:])
        return heads[:, order].reshape(values.shape)


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
