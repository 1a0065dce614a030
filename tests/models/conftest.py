from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from models.step import Step


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "contract_vectors.npz") as vectors:
        return dict(vectors)


@pytest.fixture(scope="session")
def golden2() -> dict[str, np.ndarray]:
    """Of shared/data/contract_vectors2.npz what there are ops for."""
    with np.load(Path(__file__).parent / "data" / "contract_vectors2.npz") as vectors:
        return dict(vectors)


@pytest.fixture(scope="session")
def random_params() -> Callable[[Step], dict[str, Array]]:
    """Weights of a step: codes of magnitude up to 16, scales that keep activations near 1."""

    def make(step: Step) -> dict[str, Array]:
        rng = np.random.default_rng(0)
        out: dict[str, Array] = {}
        for name, leaf in step.params.items():
            if name in step.constants:
                value = step.constants[name]
            elif name.endswith("codes"):
                codes = rng.integers(0, 256, leaf.shape, dtype=np.uint8)
                value = np.where(codes & 0x7F > 0x58, codes & 0xBF, codes).astype(np.uint8)
            elif name.endswith("exponent"):
                value = rng.integers(-7, -5, leaf.shape).astype(np.int32)
            else:
                value = rng.standard_normal(leaf.shape).astype(leaf.dtype)
            out[name] = jnp.asarray(value)
        return out

    return make
