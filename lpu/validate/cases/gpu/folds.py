"""Served rows predicted without their like: each fold by numbers that are fitted to all other folds."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from lpu.gpu.served.engine import LIMITS
from lpu.gpu.served.fit import fit
from lpu.validate.cases.gpu.step_rows import StepRow

SHARE = 0.9  # of rows that a band holds


def lengths(row: StepRow) -> Hashable:
    """Its tokens of prompt and of output: what a user changes first."""
    return row.how.prompt, row.how.outputs


def group(row: StepRow) -> Hashable:
    """Its model, format and GPU."""
    return row.group


def held_out(
    rows: Sequence[StepRow],
    fold: Callable[[StepRow], Hashable],
    asked: Mapping[str, Mapping[str, float]],
    seconds: Callable[[StepRow], float],
    limits: Mapping[str, tuple[float, float]] = LIMITS,
) -> dict[str, float]:
    """Signed error in percent of each row by id. asked: what each number multiplies, by id of the row."""
    out: dict[str, float] = {}
    for one in dict.fromkeys(fold(row) for row in rows):
        train = [row for row in rows if fold(row) != one]
        numbers = fit([asked[row.id] for row in train], [seconds(row) for row in train], limits)
        for row in rows:
            if fold(row) == one:
                modelled = sum(numbers[name] * asked[row.id][name] for name in numbers)
                out[row.id] = 100 * (modelled / seconds(row) - 1)
    return out


def band(errors: Mapping[str, float]) -> float:
    """Half-width that holds SHARE of the rows, as a share, up to the next percent."""
    return float(np.ceil(np.quantile(np.abs(list(errors.values())), SHARE)) / 100)
