"""What takes a program to be legal: where that ends in nonsense, the checker says whether it was."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import numpy as np

from compiler.program.isa import COLUMNS, TAGS, Columns, is_transfer
from compiler.program.program import Program
from lpu.check.check import require
from lpu.check.findings import Findings, Report
from lpu.check.form import form
from lpu.check.stated import Stated, claims
from lpu.folder import check_program

SENSELESS = (
    *(ArithmeticError, LookupError, ValueError, TypeError, AttributeError),
    *(AssertionError, MemoryError, RuntimeError, Warning),
)
"""What numbers that no program has can lead to."""


@contextmanager
def taken_as_legal(*programs: Program | None, counts: bool = True) -> Generator[None]:
    """A block that takes programs to be legal. counts: it counts only, so that no number may overflow.

    Raises HazardError for one whose rows make no sense, and where the block fails and one of them is illegal.
    """
    some = [program for program in programs if program is not None]
    for program in some:
        require_sound(program)
    try:
        how = "raise" if counts else None
        with np.errstate(over=how, invalid=how, divide=how):
            yield
    except SENSELESS as error:
        if not hasattr(error, "exit_code"):
            for program in some:
                for report in check_program(program).values():
                    require(report)
        raise


def require_sound(program: Program) -> None:
    """Raise HazardError for claims that cannot be, and for rows of a block that rule 0 does not know.

    Nothing is expanded for it.
    """
    for report in _reports(program):
        require(report)


def _reports(program: Program) -> Iterator[Report]:
    findings = Findings(Columns(**{name: np.zeros(0, np.int64) for name in COLUMNS + TAGS}))
    for context in program.manifest.contexts:
        for wrong in claims(program, context):
            findings.tell(0, wrong)
    yield findings.report()
    try:
        stated = Stated.of(program.manifest)
    except ValueError as error:
        findings.tell(0, f"manifest: {error}")
        yield findings.report()
        return
    for block in program.blocks:
        for columns in block.columns.values():
            found = Findings(columns)
            form(found, stated)
            _within_chips(found, stated)
            yield found.report()


def _within_chips(findings: Findings, stated: Stated) -> None:
    """Units and lanes that there are, on whatever chip: what counts them makes a place for each."""
    c = findings.columns
    units = 2 * stated.planes + stated.chains + 2  # and two of the host's lanes
    lanes = int(stated.lanes.max(initial=0))
    moves = is_transfer(c.op)
    far = np.flatnonzero(~moves & ((c.unit < 0) | (c.unit >= units)))
    findings.add(0, far, lambda i: f"unit {c.unit[far[i]]}, a chip has {units}")
    wide = np.flatnonzero(moves & ((c.lane < 0) | (c.lane + c.aux > lanes)))
    findings.add(
        0,
        wide,
        lambda i: f"lanes {c.lane[wide[i]]} and {c.aux[wide[i]] - 1} more, links have at most {lanes}",
    )
