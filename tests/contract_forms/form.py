"""The cases of contract_vectors2.npz, and what computes one: the contract's functions, or plain composition.

A form takes a case, its arrays under the names that the file gives them, and returns a function of some of
them, which gives the results by name. What must be known before tracing it takes from the case as numbers.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

PATH = Path(__file__).parents[1] / "models" / "data" / "contract_vectors2.npz"
Case = dict[str, np.ndarray]
Results = dict[str, Array]
Compute = Callable[..., Results]
Form = Callable[[Case], Compute]
FORMS: dict[str, tuple[Form, tuple[str, ...]]] = {}
_NAME = re.compile(r"((?:int4|llama4|rms32|matmul16)_\d+|[a-z]+\d*(?:norm\d+)?)_(.*)")


def form(op: str, *names: str) -> Callable[[Form], Form]:
    """Makes a function the form of an op; what it returns takes the arrays of these names that are there."""

    def register(function: Form) -> Form:
        FORMS[op] = function, names
        return function

    return register


@functools.cache
def cases(path: Path = PATH) -> dict[str, Case]:
    """The arrays of every case, by the case's name: `parts0`, `int4_2`, `tanh`."""
    found: dict[str, Case] = {}
    with np.load(path) as file:
        for name in file.files:
            case, array = split(name)
            found.setdefault(case, {})[array] = file[name]
    return found


def split(name: str) -> tuple[str, str]:
    """The case and the array that a name of the file means."""
    found = _NAME.fullmatch(name)
    assert found, name
    return found[1], found[2]


def op_of(case: str) -> str:
    """The op of a case's name."""
    return re.sub(r"_?\d+$", "", case)


def compute(name: str, case: Case, *, jit: bool = True) -> Results:
    """The results of a case by its form, compiled or op by op."""
    make, names = FORMS[op_of(name)]
    function = make(case)
    arrays = [jnp.asarray(case[array]) for array in names if array in case]
    return (jax.jit(function) if jit else function)(*arrays)


def differing(got: Any, want: np.ndarray) -> int:
    """How many values differ in a bit; all of them where type or shape do."""
    found = np.asarray(got)
    if found.dtype != want.dtype or found.shape != want.shape:
        return want.size
    bits = f"u{found.itemsize}"
    return int(np.sum(found.view(bits) != want.view(bits)))
