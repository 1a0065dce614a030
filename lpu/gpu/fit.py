"""Numbers of a formula fitted to measured times: least squares of the logarithm, outliers counting less."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PULL = 0.02  # of every number towards its start: rows of one shape do not tell all of them apart
SCALE = 0.1  # relative error from which a row counts less


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A formula. seconds: of the numbers by name and the columns. numbers: least, start and most of each."""

    seconds: Callable[[Mapping[str, float], Any], np.ndarray]
    numbers: Mapping[str, tuple[float, float, float]]

    def fit(self, columns: Any, measured: Sequence[float] | np.ndarray) -> dict[str, float]:
        """The numbers with the least error over the rows. Deterministic."""
        from scipy.optimize import least_squares  # half a second  # pyright: ignore[reportMissingTypeStubs]

        low, start, high = np.log(np.array(list(self.numbers.values())).T)
        target = np.asarray(measured, np.float64)

        def errors(point: np.ndarray) -> np.ndarray:
            modelled = self.seconds(self._named(point), columns)
            return np.concatenate([np.log(modelled / target), PULL * (point - start)])

        found: Any = least_squares(errors, start, loss="soft_l1", f_scale=SCALE, bounds=(low, high))
        return self._named(found.x)

    def _named(self, point: np.ndarray) -> dict[str, float]:
        return dict(zip(self.numbers, np.exp(point).tolist(), strict=True))
