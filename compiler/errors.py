"""What the compiler says when it cannot compile: stage, subject, the numbers that disagree, remedy.

Every error of the four packages that is the user's to mend has an `exit_code` for the command line.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar

LESS_KV = ", a shorter context, or kv: fp8"  # end of a remedy where KV takes part of the room


class CompileError(Exception):
    """The model cannot be compiled for the rack as asked.

    `reason` holds both numbers that disagree; `remedy` is a sentence that says what to change.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, stage: str, subject: str, reason: str, remedy: str = "") -> None:
        super().__init__(stage, subject, reason, remedy)
        self.stage, self.subject, self.reason, self.remedy = stage, subject, reason, remedy

    def __str__(self) -> str:
        """`stage: subject: reason. remedy`, one line."""
        text = f"{self.stage}: {self.subject}: {self.reason.rstrip('.')}."
        return f"{text} {self.remedy}" if self.remedy else text


class CapacityError(CompileError):
    """Something does not fit: SRAM, ports, accumulators, chips.

    chips: how many would do, where that is known. overfull: weights and KV are more than all SRAM of the
    rack, which they are in finer parts, too.
    """

    chips: int | None = None
    overfull: bool = False


@contextmanager
def advising(kv: str) -> Generator[None]:
    """A CapacityError inside does not advise a KV format that the model has already."""
    try:
        yield
    except CapacityError as error:
        if kv == "fp8":
            error.remedy = error.remedy.replace(LESS_KV, " or a shorter context")
        raise


class RoutingError(CompileError):
    """Data cannot reach the chip that needs it, or not over the lanes that there are."""


class UnsupportedOpError(CompileError):
    """The model holds an operation that is not in the op vocabulary."""


class OptionError(CompileError, ValueError):
    """An option with a wrong value: out of its range, or at odds with the model, the rack, another option."""

    exit_code: ClassVar[int] = 2


def bug(stage: str, subject: str, reason: str) -> CompileError:
    """What a step's result says that cannot be: the compiler is wrong, not the user."""
    return CompileError(stage, subject, reason, "This is a bug of the compiler: please report it.")
