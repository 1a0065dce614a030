"""The error of a program whose reads do not find what they must; the command line leaves with 4."""

from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from compiler.isa import Columns, Op


@dataclass(frozen=True, slots=True)
class LinkError(Exception):
    """One row of a program cannot be linked: which one, where, when and why. `row` is -1 for no single row."""

    row: int
    opcode: str
    chip: int
    cycle: int
    address: int
    message: str

    def __str__(self) -> str:
        return (
            f"link: row {self.row} ({self.opcode}) on chip {self.chip}, cycle {self.cycle}, "
            f"word {self.address}: {self.message}"
        )


def fail(columns: Columns, row: int, message: str, address: int = -1, *, at_commit: bool = False) -> NoReturn:
    """Raise LinkError for a row, at the cycle of its reads or of its commit."""
    op = Op(int(columns.op[row])).name if 0 <= columns.op[row] < len(Op) else str(columns.op[row])
    cycle = int((columns.t1 if at_commit else columns.t0)[row])
    raise LinkError(int(row), op, int(columns.chip[row]), cycle, int(address), message)


def first_of(bad: np.ndarray) -> int:
    """Index of the first True, or -1."""
    return int(np.argmax(bad)) if bad.any() else -1


def ramp(counts: np.ndarray) -> np.ndarray:
    """0 .. c-1 for each count, end to end."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
