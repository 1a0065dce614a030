"""A program folder: written whole or not at all, read back, checked bucket by bucket."""

from collections.abc import Callable
from pathlib import Path

from compiler.program import Program, load, save
from lpu.check import Report, check
from lpu.files import atomic_folder

Progress = Callable[[str, int, int], None]


def quiet(stage: str, done: int, total: int) -> None:
    """No progress reports."""


def save_program(program: Program, folder: str | Path) -> None:
    """Write a program folder: whole or not at all. Raises FileError if it cannot be written."""
    with atomic_folder(folder) as part:
        save(program, part)


def load_program(folder: str | Path) -> Program:
    """Read a program folder. Raises ProgramError if it is not whole or was altered."""
    return load(Path(folder))


def check_program(program: Program, progress: Progress = quiet) -> dict[int, Report]:
    """The report of every context bucket; nothing is raised."""
    reports: dict[int, Report] = {}
    contexts = program.manifest["contexts"]
    for i, context in enumerate(contexts):
        progress("check", i, len(contexts))
        reports[context] = check(program, context)
    return reports
