"""Vectors and matrices of the checkpoints of hybrid decoders."""

from functools import partial

import numpy as np
from jaxtyping import Float32

from models.configs.hybrid import HybridConfig
from models.families.family import CheckpointTensor

Rows = Float32[np.ndarray, "rows *rest"]


def vector(path: str, name: str, width: int) -> CheckpointTensor:
    """A vector as it lies."""
    return CheckpointTensor(path=path, name=name, shape=(width,))


def matrix(
    config: HybridConfig,
    path: str,
    name: str,
    shape: tuple[int, int],
    factor: str,
    *,
    rows: tuple[int, int] | None = None,
    lanes: tuple[int, int] | None = None,
) -> CheckpointTensor:
    """A matrix, or rows of one, times its factor."""
    by, own = config.factor(factor), (shape if rows is None else (rows[1], shape[1]))
    made = None if by == 1 else (partial(_times, by), own)
    return CheckpointTensor(path=path, name=name, shape=shape, rows=rows, lanes=lanes, made=made)


def _times(factor: float, values: Rows) -> Rows:
    return values * np.float32(factor)
