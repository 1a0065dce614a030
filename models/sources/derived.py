"""Parameters that are made of others: quantised, turned, cut or taken from a stack of a user's own arrays."""

import hashlib
import json
from collections.abc import Mapping
from math import prod

import jax
import numpy as np
from jaxtyping import Float32, Shaped

from models.own.made import Made
from models.sources.packed.convert import Changed
from models.sources.quantise import FORMAT, Quantised, dequantise, quantise, widen
from models.sources.weights import Shapes, Weights

_U8, _I32 = np.dtype(np.uint8), np.dtype(np.int32)


def drawn(shapes: Shapes, made: Mapping[str, Made]) -> Shapes:
    """What is drawn for parameters of these shapes: of an array that several are made of, the array."""
    found: Shapes = {}
    for name, shape in shapes.items():
        one = made.get(name)
        if one is None or one.alone or name == one.source:
            found[name] = shape
        elif one.source not in shapes:
            k, n = prod(one.shape[:-1]), one.shape[-1]
            found[f"{one.source}.codes"] = jax.ShapeDtypeStruct((k, n), _U8)
            found[f"{one.source}.exponent"] = jax.ShapeDtypeStruct((n,), _I32)
    return found


def derived(weights: Weights, shapes: Shapes, made: Mapping[str, Made]) -> Weights:
    """The weights with what they lack of these parameters made of what they hold."""
    missing = [name for name in shapes if name not in weights.shapes and name in made]
    return DerivedWeights(weights, shapes, {name: made[name] for name in missing}) if missing else weights


class DerivedWeights:
    """`Weights` of which some are made of others; see `derived`."""

    def __init__(self, weights: Weights, shapes: Shapes, made: Mapping[str, Made]) -> None:
        self._weights = weights
        self._made = {name: one for name, one in made.items() if _origin(one, weights.shapes)}
        self.shapes: Shapes = {
            name: weights.shapes.get(name, shape)
            for name, shape in shapes.items()
            if name in weights.shapes or name in self._made
        }
        self.identity, self.notes = weights.identity, weights.notes
        self._errors: dict[str, float] = {}
        self._last: tuple[str, Quantised] | None = None

    @property
    def relative_errors(self) -> Mapping[str, float]:
        """Relative rms error of quantisation by path of the codes, for the matrices loaded so far."""
        return {**self._weights.relative_errors, **self._errors}

    @property
    def changed(self) -> Mapping[str, Changed]:
        """What became of weights that the checkpoint had quantised, for the matrices loaded so far."""
        return getattr(self._weights, "changed", {})

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor of that path; of one that is made, the matrix is quantised when it is asked for."""
        made = self._made.get(name)
        if made is None:
            return self._weights[name]
        if made.part == "values":
            array = self._array(made)
            return np.ascontiguousarray(array if not made.moves else widen(made.moved(array)))
        path = name.removesuffix(f".{made.part}")
        if self._last is None or self._last[0] != path:
            self._last = path, quantise(self._matrix(made), path)
            self._errors[f"{path}.codes"] = self._last[1].relative_error
        return self._last[1].codes if made.part == "codes" else self._last[1].exponent

    def plain(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor in f32; a matrix before its quantisation."""
        made = self._made.get(name)
        if made is None:
            return self._weights.plain(name)
        if made.part == "codes":
            return self._matrix(made)
        return self[name] if made.part == "exponent" else widen(self[name])

    def digest(self) -> str:
        """Sha256 of the weights that these are made of, and of how."""
        how = [[name, repr(made)] for name, made in sorted(self._made.items())]
        return hashlib.sha256(json.dumps([FORMAT, self._weights.digest(), how]).encode()).hexdigest()

    def _matrix(self, made: Made) -> Float32[np.ndarray, "k n"]:
        return np.ascontiguousarray(made.moved(widen(self._array(made))))

    def _array(self, made: Made) -> Shaped[np.ndarray, "*axes"]:
        origin = _origin(made, self._weights.shapes)
        if made.stack and origin == made.stack[0]:
            return self._weights[origin][made.stack[1]]
        if origin == made.source:
            return self._weights[origin]
        codes, exponent = self._weights[origin], self._weights[f"{made.source}.exponent"]
        return dequantise(codes, exponent).reshape(made.shape)


def _origin(made: Made, shapes: Shapes) -> str:
    """What a parameter is made of, by what there is; empty if nothing."""
    stack = [made.stack[0]] if made.stack else []
    return next((name for name in (made.source, *stack, f"{made.source}.codes") if name in shapes), "")
