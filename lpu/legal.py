"""What takes a program to be legal: where that ends in nonsense, the checker says whether it was."""

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from compiler.program.program import Program
from lpu.check.check import require
from lpu.check.sound import require_sound
from lpu.folder import check_program

SENSELESS = (
    *(ArithmeticError, LookupError, ValueError, TypeError, AttributeError),
    *(AssertionError, MemoryError, RuntimeError, Warning),
)
"""What numbers that no program has can lead to."""


@contextmanager
def taken_as_legal(*programs: Program | None) -> Generator[None]:
    """A block that takes programs to be legal.

    Raises HazardError for one whose rows make no sense, and where the block fails and one of them is illegal.
    """
    some = [program for program in programs if program is not None]
    for program in some:
        require_sound(program)
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            yield
    except SENSELESS as error:
        if not hasattr(error, "exit_code"):
            for program in some:
                for report in check_program(program).values():
                    require(report)
        raise
