"""Percentiles, and how sure they are.

Of one run: an interval of order statistics (Conover, Practical Nonparametric Statistics, 3.2), exact for
independent requests; those in one queue are not independent, so it is then too narrow. Of several seeds:
Student's t over the percentiles of each, which holds for queues too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, sqrt

import numpy as np
from jaxtyping import Float64

QUANTILES = (0.5, 0.9, 0.95, 0.99)
Z95 = 1.959964
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t for 95 % on both sides, 1 to 10 degrees of freedom; more: with 10, which is wider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """A percentile in seconds, and between what it lies with 95 % confidence; inf: beyond the samples."""

    quantile: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """A span of many requests in seconds: how many they are, the mean, the most, and percentiles."""

    count: int
    mean: float
    most: float
    percentiles: tuple[Percentile, ...]

    def at(self, quantile: float) -> Percentile:
        """One of the percentiles."""
        return next(one for one in self.percentiles if one.quantile == quantile)


def spread(values: Float64[np.ndarray, " requests"]) -> Quantiles | None:
    """Of one run; None without requests. A percentile is a value that occurred."""
    count = len(values)
    if not count:
        return None
    ordered = np.sort(values)
    found: list[Percentile] = []
    for q in QUANTILES:
        half = Z95 * sqrt(count * q * (1 - q))
        low, high = floor(count * q - half), ceil(count * q + half) + 1
        found.append(
            Percentile(
                quantile=q,
                value=float(ordered[max(ceil(count * q), 1) - 1]),
                low=float(ordered[low - 1]) if low >= 1 else 0.0,
                high=float(ordered[high - 1]) if high <= count else inf,
            )
        )
    return Quantiles(
        count=count, mean=float(values.mean()), most=float(ordered[-1]), percentiles=tuple(found)
    )


def over_seeds(every: Sequence[Quantiles]) -> Quantiles:
    """Of several runs: means over them, each percentile with an interval of Student's t."""
    if len(every) == 1:
        return every[0]
    student = T95[min(len(every) - 1, len(T95)) - 1]
    found: list[Percentile] = []
    for i, q in enumerate(QUANTILES):
        values = np.array([one.percentiles[i].value for one in every])
        half = student * float(values.std(ddof=1)) / sqrt(len(values))
        middle = float(values.mean())
        found.append(Percentile(quantile=q, value=middle, low=max(0.0, middle - half), high=middle + half))
    return Quantiles(
        count=sum(one.count for one in every),
        mean=float(np.mean([one.mean for one in every])),
        most=max(one.most for one in every),
        percentiles=tuple(found),
    )
