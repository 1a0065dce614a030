"""What a parameter of a step is made of, where the user's module holds it in another form."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

Part = Literal["codes", "exponent", "values"]
Moves = tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One parameter: an array of the module, reshaped, and quantised unless its part is "values".

    source: the array's path, with the index where it is one of a stack. stack: path and index of that stack.
    moves: what is done to it, in order: ("reshape", shape), ("transpose", axes) or ("slice", (start, stop,
    stride) by axis). alone: nothing else is made of the array, and nothing reads it as it is.
    """

    source: str
    shape: tuple[int, ...]
    moves: Moves = ()
    part: Part = "values"
    stack: tuple[str, int] | None = None
    alone: bool = True

    def moved(self, array: Shaped[np.ndarray, "*axes"]) -> Shaped[np.ndarray, "*moved"]:
        """The array after all moves."""
        for move in self.moves:
            array = apply(array, move)
        return array


def apply(
    array: Shaped[np.ndarray, "*axes"], move: tuple[str, tuple[Any, ...]]
) -> Shaped[np.ndarray, "*moved"]:
    """The array after one move."""
    name, to = move
    if name == "slice":
        return array[tuple(slice(*one) for one in to)]
    return array.reshape(to) if name == "reshape" else array.transpose(to)
