"""Weights by parameter path, tensor by tensor: what every source of them offers.

Sources: `seeded.py` (`seeded`), `huggingface.py` (`open_folder`) and `checkpoint.py` (`open_orbax`).
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Shaped

from models.sources.error import WeightError
from models.step import Step

Shapes = dict[str, jax.ShapeDtypeStruct]
ReadRows = Callable[[int, int], Shaped[np.ndarray, "rows width"]]
"""Rows [first, last) of one tensor."""


@runtime_checkable
class Weights(Protocol):
    """Weights by parameter path, each loaded when asked for and kept by the caller only.

    Arrays may be read-only. A matrix comes as `<path>.codes` uint8 [k, n] and `<path>.exponent` int32 [n],
    or `<path>.scale` f32 [n].
    """

    @property
    def shapes(self) -> Shapes:
        """Shape and dtype of every tensor, by path; in this order a file is read once."""
        ...

    @property
    def identity(self) -> str:
        """Where they come from: a short text without absolute paths."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """A line for each choice that a reader may not expect, such as one of two files."""
        ...

    @property
    def relative_errors(self) -> Mapping[str, float]:
        """Relative rms error of quantisation by path of the codes, for the matrices loaded so far."""
        ...

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor of that path in the contract's format."""
        ...

    def plain(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The same in f32 before any rounding: of `<path>.codes` the scaled f32 matrix [k, n].

        Exponents come as they are: the plain step takes them and does not use them.
        """
        ...

    def digest(self) -> str:
        """Sha256 (hex) of all that determines the tensors."""
        ...


@runtime_checkable
class ByRows(Protocol):
    """Weights of which some tensors can be had row by row: what a model larger than memory is streamed by."""

    def row_reader(self, name: str) -> ReadRows | None:
        """Reads rows of that tensor, on any thread; None where it can only be had whole."""
        ...


def row_reader(weights: Weights, name: str) -> ReadRows | None:
    """Reads rows of a tensor without the rest of it; None where these weights cannot."""
    return weights.row_reader(name) if isinstance(weights, ByRows) else None


def weight_shapes(step: Step) -> Shapes:
    """Shapes of what a step takes as weights: its parameters less its constants."""
    return {name: shape for name, shape in step.params.items() if name not in step.constants}


def check_shapes(weights: Weights, wanted: Shapes) -> None:
    """Raise `WeightError` unless the weights hold every tensor of the model in its shape and dtype."""
    missing = sorted(wanted.keys() - weights.shapes.keys())
    if missing:
        raise WeightError(
            f"{weights.identity}: {len(missing)} of {len(wanted)} tensors of the model are missing, first "
            f"{missing[0]}. Use the model that these weights were made for."
        )
    for name, shape in wanted.items():
        held = weights.shapes[name]
        if (held.shape, held.dtype) != (shape.shape, shape.dtype):
            raise WeightError(
                f"{weights.identity}: {name} is {held.dtype} {list(held.shape)}, the model takes "
                f"{shape.dtype} {list(shape.shape)}. Use the model that these weights were made for."
            )


def content_digest(weights: Weights) -> str:
    """Sha256 (hex) over the tensors themselves: equal for equal weights, wherever they come from."""
    held = ((name, weights[name]) for name in sorted(weights.shapes))
    return table_digest((name, SealedTensor.of(array)) for name, array in held)


class SealedTensor(NamedTuple):
    """What a tensor is: dtype, shape, and the sha256 (hex) of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str

    @classmethod
    def of(cls, array: Shaped[np.ndarray, "*axes"]) -> "SealedTensor":
        """Of an array."""
        digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        return cls(str(array.dtype), array.shape, digest)

    @classmethod
    def read(cls, entry: Any) -> "SealedTensor":
        """Of JSON. Raises KeyError or TypeError."""
        dtype, shape, digest = entry["dtype"], entry["shape"], entry["sha256"]
        if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
            raise TypeError(f"a shape of {shape!r}")
        if not isinstance(dtype, str) or not isinstance(digest, str):
            raise TypeError(f"a dtype of {dtype!r} and a sha256 of {digest!r}")
        return cls(dtype, tuple(shape), digest)


def table_digest(tensors: Iterable[tuple[str, SealedTensor]]) -> str:
    """Sha256 (hex) over names and tensors in the given order."""
    total = hashlib.sha256()
    for name, one in tensors:
        total.update(f"{name} {one.dtype} {list(one.shape)} {one.sha256}\n".encode())
    return total.hexdigest()
