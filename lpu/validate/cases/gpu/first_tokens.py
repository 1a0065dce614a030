"""Times to the first token of served pools with their queue, by load; rows outside the band are named."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lpu.gpu.served.first_token import LIMITS, ServedLoad, first_token, loads, waits
from lpu.validate.cases.gpu import preamble
from lpu.validate.cases.gpu.folds import group, held_out, lengths
from lpu.validate.cases.gpu.step_rows import StepRow, step_rows
from lpu.validate.cases.gpu.steps import within
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
    """Points of one load: rows without their lengths, without their group, fitted to all; rows outside."""

    def points(served: FirstTable) -> tuple[PublishedPoint, ...]:
        mine, by = served.of(load), served.loads[load]
        asked = {row.id: waits(row.spec, row.shape, row.how, by.serves) for row in mine}
        seen = held_out(mine, lengths, asked, lambda row: row.first, LIMITS)
        fitted = [100 * (first_token(row.spec, row.shape, row.how, by) / row.first - 1) for row in mine]
        groups = list(dict.fromkeys(row.group for row in mine))
        by_group = [(one, [seen[row.id] for row in mine if row.group == one]) for one in groups]
        return (
            *(_mean(case, f"{one}, other lengths", found, by.band) for one, found in by_group),
            _mean(case, f"{load}, other lengths", list(seen.values()), by.band, gate=True),
            within(case, f"{load}, other lengths", seen, by.band),
            *(_unseen(case, load, mine, asked, by.unseen) if by.unseen else ()),
            _mean(case, f"{load}, fitted to all", fitted, by.band, gate=True),
            *_outside(case, mine, seen, by),
        )

    return points


def _unseen(
    case: int, load: str, mine: list[StepRow], asked: Mapping[str, Mapping[str, float]], width: float
) -> Iterator[PublishedPoint]:
    """Each group by the others alone."""
    found = held_out(mine, group, asked, lambda row: row.first, LIMITS)
    for one in dict.fromkeys(row.group for row in mine):
        errors = [found[row.id] for row in mine if row.group == one]
        yield _mean(case, f"{one}, by the others alone", errors, width)
    yield within(case, f"{load}, other models", found, width)


def _outside(
    case: int, mine: list[StepRow], seen: dict[str, float], by: ServedLoad
) -> Iterator[PublishedPoint]:
    """Rows outside the band, each by its name, as predicted without its lengths."""
    for row in mine:
        if abs(seen[row.id]) > 100 * by.band:
            yield PublishedPoint(
                case=case,
                name=f"outside the band of {100 * by.band:.0f} %: {row.id}",
                kind="shown",
                unit="ms",
                published=1000 * row.first,
                modelled=1000 * row.first * (1 + seen[row.id] / 100),
                tolerance_percent=None,
            )


def _mean(case: int, name: str, found: list[float], width: float, gate: bool = False) -> PublishedPoint:
    inside = sum(abs(one) <= 100 * width for one in found)
    return PublishedPoint(
        case=case,
        name=f"{name}: {inside} of {len(found)} rows within {100 * width:.0f} %, "
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
                remark="`other lengths`: rows of each pair of prompt and output by the rows of the other "
                "pairs; the band is the 90th percentile of their errors. `by the others alone`: a model, "
                "format and GPU by the rows of the others. The package's five numbers are fitted to all rows",
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
