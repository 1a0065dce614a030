"""The error of a program whose reads do not find what they must; the command line leaves with 4."""

from typing import Any, NoReturn

from compiler.program.instruction_set import name_of
from compiler.program.isa import Columns


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
    cycle = int((columns.t1 if at_commit else columns.t0)[row])
    opcode = name_of(int(columns.op[row]))
    raise LinkError(int(row), opcode, int(columns.chip[row]), cycle, int(address), message)
