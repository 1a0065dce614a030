"""Times to the first token of served pools with their queue, by load; rows outside the band are named."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lpu.gpu.served.first_token import LIMITS, ServedLoad, first_token, loads, waits
from lpu.gpu.served.fit import fit
from lpu.validate.cases.gpu import preamble
from lpu.validate.cases.gpu.step_rows import StepRow, step_rows
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.suite import Case, Suite

MOST = 25  # percent, mean
FIRST = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstTable:
    """The rows, all of them, and the loads that are held against them."""

    rows: tuple[StepRow, ...]
    loads: dict[str, ServedLoad]

    def of(self, load: str) -> list[StepRow]:
        """Rows of a load."""
        by = self.loads[load]
        return [row for row in self.rows if row.engine == by.engine and row.spec.name in by.gpus]


def table() -> FirstTable:
    """The rows and the loads of the package."""
    return FirstTable(rows=step_rows(), loads=dict(loads()))


def points_of(case: int, load: str) -> Callable[[FirstTable], tuple[PublishedPoint, ...]]:
    """Points of one load: by group, over all rows, each group by a fit to the others, and rows outside."""

    def points(served: FirstTable) -> tuple[PublishedPoint, ...]:
        mine, by = served.of(load), served.loads[load]
        modelled = {row.id: first_token(row.spec, row.shape, row.how, by) for row in mine}
        errors = {row.id: 100 * (modelled[row.id] / row.first - 1) for row in mine}
        groups = list(dict.fromkeys(row.group for row in mine))
        return (
            *(
                _mean(case, f"{group}", [errors[r.id] for r in mine if r.group == group], by)
                for group in groups
            ),
            _mean(case, f"{load}, all rows", list(errors.values()), by, gate=True),
            *(_unseen(case, group, mine, by) for group in groups if len(groups) > 1),
            *_outside(case, mine, modelled, by),
        )

    return points


def _unseen(case: int, group: str, mine: list[StepRow], by: ServedLoad) -> PublishedPoint:
    asked = {row.id: waits(row.spec, row.shape, row.how, by.serves) for row in mine}
    train = [row for row in mine if row.group != group]
    numbers = fit([asked[row.id] for row in train], [row.first for row in train], LIMITS)
    held = [row for row in mine if row.group == group]
    found = [sum(numbers[key] * asked[row.id][key] for key in numbers) / row.first - 1 for row in held]
    return _mean(case, f"{group}, by the others alone", [100 * one for one in found], by)


def _outside(
    case: int, mine: list[StepRow], modelled: dict[str, float], by: ServedLoad
) -> Iterator[PublishedPoint]:
    """Rows outside the band, each by its name."""
    for row in mine:
        middle = modelled[row.id]
        if abs(middle / row.first - 1) > by.band:
            yield PublishedPoint(
                case=case,
                name=f"outside the band of {100 * by.band:.0f} %: {row.id}",
                kind="shown",
                unit="ms",
                published=1000 * row.first,
                modelled=1000 * middle,
                tolerance_percent=None,
            )


def _mean(case: int, name: str, found: list[float], by: ServedLoad, gate: bool = False) -> PublishedPoint:
    inside = sum(abs(one) <= 100 * by.band for one in found)
    return PublishedPoint(
        case=case,
        name=f"{name}: {inside} of {len(found)} rows within {100 * by.band:.0f} %, "
        f"bias {np.mean(found):+.0f} %",
        kind="gate",
        unit="% MAPE",
        published=MOST,
        modelled=float(np.mean(np.abs(found))),
        tolerance_percent=0 if gate else None,
    )


SUITE = Suite(
    cases=(
        *(
            Case(
                number=FIRST + i,
                title=f"time to the first token with its queue, load {name}",
                points=points_of(FIRST + i, name),
                remark="five numbers of the load were fitted to all of its rows, the band is the 90th "
                "percentile of their errors: agreement says little; `by the others alone` is what it may be "
                "off by",
            )
            for i, name in enumerate(loads())
        ),
        Case(
            number=preamble.CASE,
            title="a header that changes with every request, Nemotron-3-Super 120B on one B200",
            points=preamble.points,
            remark="blocks are counted exactly; the difference of both times is operators one after another, "
            "nothing fitted; the 168 ms themselves are no prediction",
        ),
    ),
    machine=table,
    sources=lambda _: (),
    figure="measured",
)
