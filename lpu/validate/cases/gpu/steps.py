"""Whole steps of served models, by engine: mean error, and the error on models that the fit has not seen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lpu.gpu.served.engine import Engine, engines
from lpu.gpu.served.fit import fit
from lpu.gpu.served.step import bodies, served_step
from lpu.validate.cases.gpu.step_rows import StepRow, step_rows
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.suite import Case, Suite

MOST = 15  # percent, mean
FIRST = 301


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """The rows, and the engines whose numbers are held against them."""

    rows: tuple[StepRow, ...]
    engines: dict[str, Engine]

    def of(self, engine: str) -> list[StepRow]:
        """Rows of an engine that count."""
        return [row for row in self.rows if row.engine == engine and not row.left_out]


def table() -> StepTable:
    """The rows and the engines of the package."""
    return StepTable(rows=step_rows(), engines=dict(engines()))


def points_of(case: int, engine: str) -> Callable[[StepTable], tuple[PublishedPoint, ...]]:
    """Points of one engine: by group, over all rows, and each group by a fit to the others."""

    def points(served: StepTable) -> tuple[PublishedPoint, ...]:
        mine = served.of(engine)
        every = {row.id: _error(row, served.engines[engine]) for row in mine}
        groups = list(dict.fromkeys(row.group for row in mine))
        gone = [row for row in served.rows if row.engine == engine and row.left_out]
        return (
            *(
                _mean(case, f"{group}", [every[row.id] for row in mine if row.group == group])
                for group in groups
            ),
            _mean(case, f"{engine}, all rows", list(every.values()), gate=True),
            *(_unseen(case, group, mine) for group in groups if len(groups) > 1),
            *(_left(case, why, gone) for why in dict.fromkeys(row.left_out for row in gone)),
        )

    return points


def _error(row: StepRow, by: Engine) -> float:
    return 100 * (served_step(row.spec, row.shape, row.how, by).seconds / row.seconds - 1)


def _unseen(case: int, group: str, mine: list[StepRow]) -> PublishedPoint:
    train = [row for row in mine if row.group != group]
    numbers = fit([bodies(row.spec, row.shape, row.how) for row in train], [row.seconds for row in train])
    by = Engine(name="refitted", band=0.0, rows=len(train), numbers=numbers)
    return _mean(case, f"{group}, by the others alone", [_error(r, by) for r in mine if r.group == group])


def _left(case: int, why: str, gone: list[StepRow]) -> PublishedPoint:
    some = [row.id for row in gone if row.left_out == why]
    return PublishedPoint(
        case=case,
        name=f"left out, {why} ({some[0]} ...)",
        kind="shown",
        unit="rows",
        published=len(some),
        modelled=len(some),
        tolerance_percent=None,
    )


def _mean(case: int, name: str, found: list[float], gate: bool = False) -> PublishedPoint:
    return PublishedPoint(
        case=case,
        name=f"{name}: {len(found)} rows, bias {np.mean(found):+.0f} %",
        kind="gate",
        unit="% MAPE",
        published=MOST,
        modelled=float(np.mean(np.abs(found))),
        tolerance_percent=0 if gate else None,
    )


TITLES = {"vllm": "vLLM", "trtllm": "TensorRT-LLM", "sglang": "SGLang"}
SUITE = Suite(
    cases=tuple(
        Case(
            number=FIRST + i,
            title=f"served steps by {title}, H100 to GB200",
            points=points_of(FIRST + i, name),
            remark="ten numbers of the engine were fitted to all of its rows; the lines `by the others "
            "alone` are what a model that was not fitted may be off by",
        )
        for i, (name, title) in enumerate(TITLES.items())
    ),
    machine=table,
    sources=lambda _: (),
    figure="measured",
)
