"""Whole steps of served models, by engine: rows predicted without their lengths, and without their model."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lpu.gpu.served.engine import Engine, engines
from lpu.gpu.served.step import bodies, served_step
from lpu.validate.cases.gpu.folds import SHARE, group, held_out, lengths
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
    """Points of one engine: rows without their lengths by group, without their group, and fitted to all."""

    def points(served: StepTable) -> tuple[PublishedPoint, ...]:
        mine, by = served.of(engine), served.engines[engine]
        asked = {row.id: bodies(row.spec, row.shape, row.how) for row in mine}
        seen = held_out(mine, lengths, asked, lambda row: row.seconds)
        unseen = held_out(mine, group, asked, lambda row: row.seconds)
        every = [_error(row, by) for row in mine]
        groups = list(dict.fromkeys(row.group for row in mine))
        gone = [row for row in served.rows if row.engine == engine and row.left_out]

        def of(found: dict[str, float], name: str) -> list[float]:
            return [found[row.id] for row in mine if row.group == name]

        return (
            *(_mean(case, f"{one}, other lengths", of(seen, one)) for one in groups),
            _mean(case, f"{engine}, other lengths", list(seen.values()), gate=True),
            within(case, f"{engine}, other lengths", seen, by.band),
            *(_mean(case, f"{one}, by the others alone", of(unseen, one)) for one in groups),
            within(case, f"{engine}, other models", unseen, by.unseen),
            _mean(case, f"{engine}, fitted to all", every, gate=True),
            *(_left(case, why, gone) for why in dict.fromkeys(row.left_out for row in gone)),
        )

    return points


def _error(row: StepRow, by: Engine) -> float:
    return 100 * (served_step(row.spec, row.shape, row.how, by).seconds / row.seconds - 1)


def within(case: int, name: str, found: dict[str, float], width: float) -> PublishedPoint:
    """Whether rows that were left out lie within a band."""
    return PublishedPoint(
        case=case,
        name=f"{name}, {100 * SHARE:.0f} % of {len(found)} rows within",
        kind="gate",
        unit="%",
        published=100 * width,
        modelled=float(np.quantile(np.abs(list(found.values())), SHARE)),
        tolerance_percent=0,
    )


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
            remark="`other lengths`: rows of each pair of prompt and output by the rows of the other pairs. "
            "`by the others alone`: a model, format and GPU by the rows of the others. The package's ten "
            "numbers are fitted to all rows; its bands are those of the rows left out",
        )
        for i, (name, title) in enumerate(TITLES.items())
    ),
    machine=table,
    sources=lambda _: (),
    figure="measured",
)
