"""The numbers of an engine fitted to measured steps: relative least squares within limits, outliers less."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpu.gpu.served.engine import LIMITS

ROUNDS = 30
SCALE = 0.05  # relative error from which a row counts less


def fit(
    bodies: Sequence[Mapping[str, float]],
    seconds: Sequence[float],
    limits: Mapping[str, tuple[float, float]] = LIMITS,
) -> dict[str, float]:
    """By name, of rows of `bodies` that took `seconds`, each within its limits. Deterministic."""
    from scipy.optimize import lsq_linear  # half a second  # pyright: ignore[reportMissingTypeStubs]

    over = np.array([[one[name] for name in limits] for one in bodies]) / np.array(seconds)[:, None]
    bounds = tuple(np.array(list(limits.values()), np.float64).T)
    weight, found = np.ones(len(over)), np.zeros(len(limits))
    for _ in range(ROUNDS):
        solved: Any = lsq_linear(over * weight[:, None], weight, bounds)
        found = solved.x
        weight = 1 / np.sqrt(np.maximum(np.abs(over @ found - 1), SCALE))
    untold = ~over.any(axis=0)  # no row tells: as the bodies say
    return dict(zip(limits, np.where(untold, 1.0, found).tolist(), strict=True))
