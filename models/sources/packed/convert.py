"""Weights that a checkpoint has quantised in its own way as ours: exact where that can be, else counted."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from models.contract.scales.mxfp4 import from_mxfp4
from models.sources.quantise import Quantised, dequantise


class Changed(NamedTuple):
    """Weights whose value is another one after the conversion, of how many."""

    weights: int
    of: int

    def __str__(self) -> str:
        what = f"{self.of:,} weights that the checkpoint had quantised"
        return f"{self.weights:,} of {what} changed their value" if self.weights else f"{what} are exact"


def changed_of(weights: object) -> Changed | None:
    """Of the matrices loaded so far; None where the checkpoint had quantised none."""
    each: Mapping[str, Changed] = getattr(weights, "changed", {})
    if not each:
        return None
    return Changed(sum(one.weights for one in each.values()), sum(one.of for one in each.values()))


def converted(
    nibbles: UInt8[np.ndarray, "k n"],
    powers: UInt8[np.ndarray, "blocks n"],
    values: Float32[np.ndarray, "k n"],
) -> Quantised:
    """An MXFP4 matrix by the contract's rule: exact while blocks of a column spread 14 binades at most."""
    made = from_mxfp4(jnp.asarray(nibbles), jnp.asarray(powers))
    codes, exponent = np.asarray(made.codes), np.asarray(made.exponent)
    error = dequantise(codes, exponent) - values
    total = float(np.square(values, dtype=np.float64).sum())
    relative = (float(np.square(error, dtype=np.float64).sum()) / total) ** 0.5 if total else 0.0
    return Quantised(codes, exponent, relative, total)


def changed_values(values: Sequence[Float32[np.ndarray, "k n"]], made: Sequence[Quantised]) -> Changed:
    """How many weights of these matrices changed their value."""
    pairs = list(zip(values, made, strict=True))
    wrong = sum(int(np.count_nonzero(dequantise(m.codes, m.exponent) != v)) for v, m in pairs)
    return Changed(wrong, sum(v.size for v, _ in pairs))
