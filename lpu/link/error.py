"""The error of a program whose reads do not find what they must; the command line leaves with 4."""

from typing import Any, NoReturn

import numpy as np

from compiler.program.isa import Columns, Op


class LinkError(Exception):
    """One row of a program cannot be linked: which one, on which chip, at which cycle and word, and why."""

    exit_code = 4

    def __init__(self, row: int, opcode: str, chip: int, cycle: int, address: int, message: str) -> None:
        where = "" if address < 0 else f", word {address}"
        super().__init__(f"link: row {row} ({opcode}) on chip {chip}, cycle {cycle}{where}: {message}")
        self.row, self.opcode, self.chip = row, opcode, chip
        self.cycle, self.address, self.message = cycle, address, message


def fail(columns: Columns, row: Any, message: str, address: Any = -1, *, at_commit: bool = False) -> NoReturn:
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
