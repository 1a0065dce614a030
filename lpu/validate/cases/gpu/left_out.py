"""Rows that a model, or a GPU, is predicted from: all others', of the nearest kernel that they have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lpu.gpu.experts.kernel import BYTES
from lpu.validate.cases.gpu.expert_rows import BLACKWELL, MeasuredLaunch, predicted

LEAST_ROWS = 20  # to fit a kernel to; with fewer it counts as another
Leaves = Literal["model", "gpu"]
SAME, OTHER_FORMATS, OTHER_KERNELS = "kernel", "other formats of the kernel", "other kernels"
"""How near the rows are that a kernel was fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row that was predicted without its model or without its GPU. error: signed, in percent."""

    row: MeasuredLaunch
    nearness: str
    error: float


def left_out(every: Sequence[MeasuredLaunch], leaves: Leaves) -> list[LeftOut]:
    """Every row of an op, predicted from rows that share neither its model nor, with `gpu`, its GPU."""
    key: Callable[[MeasuredLaunch], tuple[object, ...]] = lambda row: (row.gpu, row.model, row.group)
    groups: dict[tuple[object, ...], list[MeasuredLaunch]] = {}
    for row in every:
        groups.setdefault(key(row) if leaves == "model" else key(row)[::2], []).append(row)
    out: list[LeftOut] = []
    for test in groups.values():
        others = [row for row in every if getattr(row, leaves) != getattr(test[0], leaves)]
        train, nearness = nearest(others, test[0])
        modelled = predicted(train, test)
        out += [
            LeftOut(row=row, nearness=nearness, error=100 * (float(seconds) / row.seconds - 1))
            for row, seconds in zip(test, modelled, strict=True)
        ]
    return out


def nearest(others: Sequence[MeasuredLaunch], row: MeasuredLaunch) -> tuple[list[MeasuredLaunch], str]:
    """The rows to fit a kernel to, and how near they are.

    The kernel itself, on the same GPU, else on those of its generation, else on any. Then its other formats,
    in the same order. Then the next wider format of other kernels.
    """
    generation = BLACKWELL if row.gpu in BLACKWELL else (row.gpu,)
    places = (
        [one for one in others if one.gpu == row.gpu],
        [one for one in others if one.gpu in generation],
        list(others),
    )
    for nearness, alike in (
        (SAME, lambda one: one.group == row.group),
        (OTHER_FORMATS, lambda one: one.kernel == row.kernel),
    ):
        for place in places:
            found = [one for one in place if alike(one)]
            if len(found) >= LEAST_ROWS:
                return found, nearness
    here = next(place for place in places if len(place) >= LEAST_ROWS)
    wider = [one for one in here if BYTES[one.format] >= BYTES[row.format]]
    least = min(BYTES[one.format] for one in wider)
    return [one for one in wider if BYTES[one.format] == least], OTHER_KERNELS
