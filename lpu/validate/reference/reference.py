"""`lpu validate --reference`: every case computed from its inputs, and the status that follows compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lpu.inputs.document import FileError
from lpu.screen import OnScreen
from lpu.validate.reference.case import PrintedRow, ReferenceCase, Status, cases, worst
from lpu.validate.reference.changes import Changes, changed
from lpu.validate.reference.expression import ExpressionError, Value, evaluate
from lpu.validate.reference.printed import NOTHING, printed

SCHEMA = "lpu-reference/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """A row with its values. status: what follows from them. basis, right: None where there is no formula."""

    row: PrintedRow
    basis: Value | None
    right: Value | None
    status: Status

    @property
    def passed(self) -> bool | None:
        """Whether the computed status is the stated one; None for claims, which are shown only."""
        return None if self.row.status == "CLAIM" else self.status == self.row.status

    def to_json(self) -> dict[str, Any]:
        """For `--json`; values are in `unit`."""
        row = self.row
        return {
            "name": row.name,
            "unit": row.unit,
            "printed": row.printed,
            "other": row.other,
            "basis": self.basis,
            "basis_formula": row.basis,
            "assumes": row.assumes,
            "right": self.right,
            "right_formula": row.right,
            "stated_status": row.status,
            "status": self.status,
            "passed": self.passed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """A case with its figures. changed: inputs are not those of the document, so nothing is asserted."""

    case: ReferenceCase
    figures: tuple[Recomputed, ...]
    changed: bool

    @property
    def status(self) -> Status:
        """The worst status that follows from its figures."""
        return worst([figure.status for figure in self.figures])

    @property
    def passed(self) -> bool | None:
        """Whether every status is the stated one; None with changed inputs, or where all are claims."""
        verdicts = [figure.passed for figure in self.figures]
        if self.changed or all(one is None for one in verdicts):
            return None
        return False not in verdicts

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        case = self.case
        return {
            "id": case.id,
            "where": case.where,
            "title": case.title,
            "says": case.says,
            "inputs": case.inputs,
            "changed": self.changed,
            "stated_status": case.status,
            "status": self.status,
            "passed": self.passed,
            "rows": [figure.to_json() for figure in self.figures],
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reference(OnScreen):
    """All cases that were asked for."""

    results: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no status differs from the stated one."""
        return all(result.passed is not False for result in self.results)

    @property
    def verdict(self) -> str:
        """Cases by status, and what differs."""
        count = {one: sum(r.status == one for r in self.results) for one in Status.__args__}
        parts = ", ".join(f"{number} {status}" for status, number in count.items() if number)
        off = [result.case.id for result in self.results if result.passed is False]
        moved = sum(result.changed for result in self.results)
        held = f"; NOT the stated status: {', '.join(off)}" if off else ", each the stated status"
        held = held if moved < len(self.results) else ""
        rest = f"; {moved} with changed inputs, not compared" if moved else ""
        return f"{len(self.results)} case{'s' * (len(self.results) > 1)}: {parts}{held}{rest}"

    def __str__(self) -> str:
        return "\n".join(
            [self.verdict, *(f"{r.case.id:<9} {r.status:<8} {r.case.says}" for r in self.results)]
        )

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "schema": SCHEMA,
            "suite": "reference",
            "passed": self.passed,
            "verdict": self.verdict,
            "cases": [result.to_json() for result in self.results],
        }


def reference(
    case: str | None = None, changes: Changes | None = None, of: Sequence[ReferenceCase] | None = None
) -> Reference:
    """Compute the cases, or the one of that id. of: other cases than the package's. Raises FileError."""
    plain = cases() if of is None else tuple(of)
    pairs = list(zip(plain, changed(plain, changes or {}), strict=True))
    chosen = [one for one in pairs if case in (None, one[0].id)]
    if not chosen:
        raise FileError(
            f"validate: --case {case}: there is no such case. They are {plain[0].id} to {plain[-1].id}."
        )
    return Reference(
        results=tuple(
            CaseResult(case=now, figures=_figures(now), changed=now is not before) for before, now in chosen
        )
    )


def _figures(case: ReferenceCase) -> tuple[Recomputed, ...]:
    names: dict[str, Value] = {**case.inputs}
    for name, text in case.let.items():
        names[name] = _valued(case, name, text, names)
    return tuple(_figure(case, row, names) for row in case.rows)


def _figure(case: ReferenceCase, row: PrintedRow, names: dict[str, Value]) -> Recomputed:
    basis, right, premise = (
        None if text is None else _valued(case, row.name, text, names)
        for text in (row.basis, row.right, row.premise)
    )
    return Recomputed(
        row=row, basis=basis, right=right, status=_status(row, basis, right, premise is not False)
    )


def _status(row: PrintedRow, basis: Value | None, right: Value | None, holds: bool) -> Status:
    """What follows from the values alone."""
    if row.other is not None:
        return "CONFLICT" if row.other != row.printed else "OK"
    if (right is None and basis is None) or row.printed == NOTHING:
        return "CLAIM"
    said = printed(row.printed, row.tolerance_percent)
    if right is not None and said.agrees(right):
        return "OK"
    return "BASIS" if basis is not None and said.agrees(basis) and holds else "WRONG"


def _valued(case: ReferenceCase, name: str, text: str, names: dict[str, Value]) -> Value:
    try:
        return evaluate(text, names)
    except ExpressionError as error:
        raise FileError(f"validate: {case.id}: {name}: {error}") from None
