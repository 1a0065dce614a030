"""Cases of the reference documents as their data file states them: rows of formulas over named inputs."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from lpu.inputs.document import Document, FileError, parse, read_document
from lpu.validate.reference.printed import NOTHING, TOLERANCE_PERCENT, printed

Status = Literal["OK", "BASIS", "WRONG", "CLAIM", "CONFLICT"]
"""OK: agrees with the right value. BASIS: agrees only on a hidden assumption that can hold. WRONG: agrees on
no assumption that can hold. CLAIM: nothing follows, shown only. CONFLICT: two documents differ."""

WORST: tuple[Status, ...] = ("CLAIM", "OK", "CONFLICT", "BASIS", "WRONG")
"""The status of a case is that of its row that comes last here."""

CASES = Path(__file__).parent / "cases.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedRow:
    """One printed figure. `right` and `basis` are expressions over the inputs of the case.

    basis: how the document reaches its figure. assumes: what that takes for granted; premise: an expression,
    whether it can hold at all. printed: the figure as text; `-`: none, the right value is
    shown alone; without `right` it is a claim, of any text.
    other: what another document prints for the same thing.
    """

    name: str
    printed: str
    status: Status
    unit: str = ""
    right: str | None = None
    basis: str | None = None
    assumes: str = ""
    premise: str | None = None
    other: str | None = None
    tolerance_percent: float = TOLERANCE_PERCENT

    def __post_init__(self) -> None:
        if self.printed != NOTHING and (self.right is not None or self.basis is not None):
            try:
                printed(self.printed, self.tolerance_percent)
            except ValueError as error:
                raise ValueError(f"printed: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceCase:
    """A table or statement of a document. says: in one sentence, what is wrong with it, or what it takes.

    inputs: numbers by name. let: further numbers, expressions over the inputs and the ones before.
    """

    id: str
    where: str
    title: str
    says: str
    rows: list[PrintedRow]
    inputs: dict[str, float] = field(default_factory=dict[str, float])
    let: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def status(self) -> Status:
        """The worst status that the file states for a row."""
        return worst([row.status for row in self.rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    cases: list[ReferenceCase]


def worst(statuses: list[Status]) -> Status:
    """The last of them in the order of WORST."""
    return max(statuses, key=WORST.index)


@cache
def cases() -> tuple[ReferenceCase, ...]:
    """The cases of the package, in the order of the file."""
    return read_cases(CASES)


def read_cases(path: Path) -> tuple[ReferenceCase, ...]:
    """The cases of a file. Raises FileError with the place of what is wrong."""
    document = read_document(path)
    found = tuple(parse(_File, document).cases)
    seen: set[str] = set()
    for index, case in enumerate(found):
        if case.id in seen:
            _complain(document, index, f"{case.id} is there twice")
        if not case.rows:
            _complain(document, index, f"{case.id} has no rows")
        seen.add(case.id)
    return found


def _complain(document: Document, index: int, why: str) -> None:
    raise FileError(document.complaint(("cases", index), why))
