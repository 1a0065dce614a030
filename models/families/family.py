"""The record of a model family: all that is known of it, stated in one file and registered.

Paths name our parameters (`layers.3.ffn.up.codes`). Every family calls its table of token vectors
`embed.table` and its output matrix `head`, which are one tensor in a tied model.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flax import nnx
from jaxtyping import Shaped

from models.config import TransformerConfig
from models.rope import lane_order
from models.sources.json_keys import Keys

TABLE, HEAD = "embed.table", "head"
EMBEDDING, LM_HEAD = "model.embed_tokens.weight", "lm_head.weight"  # of both in a Hugging Face checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRows:
    """Which rows of each of `heads` heads are ours: `count` from `first` on, of this many `rows`.

    pairs: they turn in neighbouring pairs: the first of each pair come first. matrices: each head's rows are
    a matrix of its own, with columns that are its outputs or, of the kind "inputs", rows that are its inputs.
    """

    heads: int
    rows: int
    first: int
    count: int
    pairs: bool = False
    matrices: Literal["", "inputs", "outputs"] = ""

    def take(self, values: Shaped[np.ndarray, "*axes"]) -> Shaped[np.ndarray, "*own"]:
        """Those rows, head by head."""
        every = values.reshape(self.heads, self.rows, *values.shape[1:])
        own = every[:, self.first : self.first + self.count]
        if self.pairs:
            own = np.concatenate([own[:, 0::2], own[:, 1::2]], axis=1)
        return own.reshape(-1, *values.shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTensor:
    """One tensor of a checkpoint: our path (of a matrix without `.codes`), its name and its shape there.

    rows: (first, how many) of its rows are ours; None: all. made: what becomes of those, and its shape.
    lanes: of rows that lie head by head, (lanes of a head, those that RoPE turns): they are put in the order
    of `models.rope.lane_order`. by_head: which rows of each head are ours. stack: of experts, the names of
    the matrices of each, all of that shape, whose columns lie side by side; they are quantised together.
    stored: names with other shapes there; of a stack [experts, out, k], if turned [experts, k, out], of the
    first experts, and a matrix in which those that name it have equal parts of rows or columns; of the rows
    of either where it holds gates and then ups. factor: what all of a stack is multiplied by.
    every: of experts that one tensor [experts, k, n] holds, which of its columns are ours, in our order.
    table: whether a matrix stays as it lies, rounded to fp16, as that of token vectors.
    half: whether a matrix stays fp16 (`models.contract.scales.half`), as for routers. plus: what is added to
    all, for a gain that is stored less 1. behind: tensors of that shape, or as `stored` has it, whose rows
    stand behind its own in ours. times: (name, shape) of a tensor that it is multiplied by: a number, or of a
    stack one for each expert.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    lanes: tuple[int, int] | None = None
    plus: float = 0.0
    stack: tuple[tuple[str, ...], ...] = ()
    stored: tuple[tuple[str, tuple[int, ...]], ...] = ()
    turned: bool = False
    factor: float = 1.0
    every: tuple[int, ...] = ()
    half: bool = False
    table: bool = False
    behind: tuple[str, ...] = ()
    by_head: HeadRows | None = None
    made: tuple[Callable[[Any], Any], tuple[int, ...]] | None = None
    times: tuple[str, tuple[int, ...]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors of the checkpoint that it is made of."""
        every = dict.fromkeys(name for each in self.stack for name in each)
        factor = () if self.times is None else (self.times[0],)
        return (*(tuple(every) or (self.name, *self.behind)), *factor)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor that it is made of."""
        if self.times is not None and name == self.times[0]:
            return self.times[1]
        return dict(self.stored).get(name, self.shape)

    @property
    def stack_width(self) -> int:
        """Columns of each expert of a stack."""
        return sum(map(self._width, self.stack[0]))

    def _width(self, name: str) -> int:
        """Columns that a tensor gives an expert."""
        stored = self.shape_of(name)
        return stored[2 if self.turned else 1] if len(stored) == 3 else self.shape[0]

    def of_expert(
        self, name: str, expert: int, values: Shaped[np.ndarray, "*axes"]
    ) -> Shaped[np.ndarray, "out k"]:
        """The matrix of one expert of a stack; a view. values: stored, of three axes those of the expert."""
        if values.ndim == 3:
            return values[0].T if self.turned else values[0]
        sharing = [i for i, each in enumerate(self.stack) if name in each]
        if len(sharing) == 1:
            return values
        axis, own = (0 if values.shape[1] == self.shape[1] else 1), expert - sharing[0]
        if axis == 0 and len(values) > len(sharing) * self.shape[0]:  # gates of all, then ups of all
            both = values.reshape(-1, len(sharing), self.shape[0], values.shape[1])
            return both[:, own].reshape(-1, values.shape[1])
        return np.split(values, len(sharing), axis)[own]

    @property
    def own_shape(self) -> tuple[int, ...]:
        """The shape of what is taken of it."""
        if self.behind:
            return (sum(self.shape_of(name)[0] for name in (self.name, *self.behind)), *self.shape[1:])
        if self.by_head is not None:
            return (self.by_head.heads * self.by_head.count, *self.shape[1:])
        if self.made is not None:
            return self.made[1]
        return self.shape if self.rows is None else (self.rows[1], *self.shape[1:])

    @property
    def matrix_shape(self) -> tuple[tuple[int, int], int]:
        """Of a matrix: the shape [k, n] of its codes, and how many scales it has."""
        out, width = self.own_shape
        head = self.by_head
        if head is None or not head.matrices:
            return (width, out), out
        if head.matrices == "inputs":
            return (out, width), head.heads * width
        return (head.heads * width, head.count), out

    def matrices(self, values: Shaped[np.ndarray, "out k"]) -> list[Shaped[np.ndarray, "_ _"]]:
        """What is taken of stored values as matrices [k, n], each with scales of its own; views."""
        own, head = self.take(values), self.by_head
        if head is None or not head.matrices:
            return [own.T]
        every = own.reshape(head.heads, head.count, -1)
        return [one if head.matrices == "inputs" else one.T for one in every]

    def take(self, values: Shaped[np.ndarray, "*axes"]) -> Shaped[np.ndarray, "*own"]:
        """The rows that are ours, in our order; a view where that is possible."""
        values = values + np.float32(self.plus) if self.plus else values
        if self.rows is not None:
            values = values[self.rows[0] : sum(self.rows)]
        if self.by_head is not None:
            return self.by_head.take(values)
        if self.made is not None:
            return self.made[0](values)
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
    config: the record that holds the numbers. unused: how tensors begin that checkpoints hold besides.
    """

    name: str
    module: Callable[..., nnx.Module]
    layer: Callable[..., nnx.Module] | None
    model_types: Mapping[str, Callable[[Keys, str], TransformerConfig]]
    tensors: Callable[[Any], Iterable[CheckpointTensor]]
    config: type[TransformerConfig] = TransformerConfig
    unused: tuple[str, ...] = ()
