"""The weights of experts and routers as the contract takes them: stacks with common exponents, fp16 routers.

All experts of a layer share one power of two per column, so that the sum over them is one exact sum.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float16, Float32, Int32

from models.sources.quantise import (
    Quantised,
    check_finite,
    exponents_of,
    power_of_two,
    rounded_codes,
)

HALVES = "halves"
_HIGHEST = 15  # binades of fp16 that the largest weight of a column fills (models.contract.scales.half)


class Halved(NamedTuple):
    """A router's weights over 2^exponent in fp16, and how many changed their value."""

    halves: Float16[np.ndarray, "k n"]
    exponent: Int32[np.ndarray, " n"]
    changed: int


def halved(values: Float32[np.ndarray, "k n"], name: str) -> Halved:
    """The weights of a router. Raises WeightError for values that are not finite."""
    check_finite(values, name)
    _, power = np.frexp(np.abs(values).max(axis=0, initial=0))
    exponent = np.where(np.abs(values).max(axis=0, initial=0) == 0, 0, power - _HIGHEST).astype(np.int32)
    scaled = np.ldexp(values.astype(np.float64), -exponent)
    half = scaled.astype(np.float32).astype(np.float16)
    half.view(np.uint16)[half.view(np.uint16) == 0x8000] = 0
    return Halved(half, exponent, int((half.astype(np.float64) != scaled).sum()))


def side_by_side(parts: Sequence[Float32[np.ndarray, "out k"]]) -> Float32[np.ndarray, "k n"]:
    """The matrices of one expert, transposed, side by side."""
    return np.concatenate([part.T for part in parts], axis=1)


def quantise_stack(experts: int, read: Callable[[int], Float32[np.ndarray, "k n"]], name: str) -> Quantised:
    """Codes [experts, k, n] with one exponent per column. read: one expert's matrix; each is read twice."""
    largest = None
    for expert in range(experts):
        values = read(expert)
        check_finite(values, f"{name} (expert {expert})")
        top = np.abs(values).max(axis=0)
        largest = top if largest is None else np.maximum(largest, top)
    assert largest is not None, "a stack of no experts"
    exponent = exponents_of(largest)
    scale = power_of_two(-exponent)
    codes, error, total = [], 0.0, 0.0
    for expert in range(experts):
        scaled = read(expert) * scale
        rounded, code = rounded_codes(scaled)
        codes.append(code)
        back = power_of_two(exponent)
        error += float(np.square((rounded - scaled) * back, dtype=np.float64).sum())
        total += float(np.square(scaled * back, dtype=np.float64).sum())
    return Quantised(np.stack(codes), exponent, (error / total) ** 0.5 if total else 0.0)
