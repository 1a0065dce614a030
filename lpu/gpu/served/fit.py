"""The numbers of an engine fitted to measured steps: relative least squares within limits, outliers less."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpu.gpu.served.engine import LIMITS, NAMES

ROUNDS = 30
SCALE = 0.05  # relative error from which a row counts less


def fit(bodies: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> dict[str, float]:
    """By name, of rows of `bodies` that took `seconds`. Deterministic."""
    from scipy.optimize import lsq_linear  # half a second  # pyright: ignore[reportMissingTypeStubs]

    over = np.array([[one[name] for name in NAMES] for one in bodies]) / np.array(seconds)[:, None]
    limits = tuple(np.array(list(LIMITS.values()), np.float64).T)
    weight, found = np.ones(len(over)), np.zeros(len(NAMES))
    for _ in range(ROUNDS):
        solved: Any = lsq_linear(over * weight[:, None], weight, limits)
        found = solved.x
        weight = 1 / np.sqrt(np.maximum(np.abs(over @ found - 1), SCALE))
    untold = ~over.any(axis=0)  # no row tells: as the bodies say
    return dict(zip(NAMES, np.where(untold, 1.0, found).tolist(), strict=True))
