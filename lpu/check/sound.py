"""Whether the rows and claims of a program make sense at all: what every verb asks before it reads them."""

from collections.abc import Iterator

import numpy as np

from compiler.program.isa import COLUMNS, TAGS, Columns
from compiler.program.program import Program
from lpu.check.check import require
from lpu.check.findings import Findings, Report
from lpu.check.form import form
from lpu.check.stated import Stated, claims


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
            yield found.report()
