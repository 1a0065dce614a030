"""What a reader gives: the terms of one step of a model, and the shapes of its tensors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lpu.prove.terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class HopPart:
    """A part of a layer that a hop may compute. width: of what it is sent; down, up: formats both ways.

    answer: makes of the term that it is sent what it must give.
    """

    width: int
    down: tuple[str, ...]
    up: str
    answer: Callable[[int], int]


Piece = tuple[int, int, int]
"""Columns of a tensor: the first, how many, the tensor that they are by themselves."""


@dataclass(slots=True, kw_only=True)
class ModelTerms:
    """A step of a model. tensors: every tensor by name. keys, values: of each layer, as they are appended.

    states: what is made with each state, in the order of the model.

    pieces: of a tensor whose product the model reads in parts. logits: what it leaves. places: what terms are
    called in messages. parts: by name, as "layers.3.ffn".
    """

    tensors: dict[str, int] = field(default_factory=dict[str, int])
    keys: list[int] = field(default_factory=list[int])
    values: list[int] = field(default_factory=list[int])
    states: list[int] = field(default_factory=list[int])
    pieces: dict[int, list[Piece]] = field(default_factory=dict[int, list[Piece]])
    logits: int = -1
    places: dict[int, str] = field(default_factory=dict[int, str])
    parts: dict[str, HopPart] = field(default_factory=dict[str, HopPart])


Reader = Callable[[Terms, Mapping[str, Any], int, str], ModelTerms]
"""Of the terms to make, a model's numbers as its manifest has them, the longest context, the KV format."""
