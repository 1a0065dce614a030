"""A program folder: written whole or not at all, read back, checked bucket by bucket.

A prefill program lies in the folder `prefill` of the decode program that it shares its memory image with.
"""

from collections.abc import Callable
from pathlib import Path

from compiler.program import Program, load, save
from lpu.check import Report, check
from lpu.files import atomic_folder

PREFILL = "prefill"
Progress = Callable[[str, int, int], None]


def quiet(stage: str, done: int, total: int) -> None:
    """No progress reports."""


def save_program(program: Program, folder: str | Path, prefill: Program | None = None) -> None:
    """Write a program folder: whole or not at all. Raises FileError if it cannot be written."""
    with atomic_folder(folder) as part:
        save_into(part, program, prefill)


def save_into(folder: Path, program: Program, prefill: Program | None = None) -> None:
    """Write the files of a program, and of its prefill program, into an existing folder."""
    save(program, folder)
    if prefill is not None:
        (folder / PREFILL).mkdir()
        save(prefill, folder / PREFILL)


def load_program(folder: str | Path) -> Program:
    """Read a program folder. Raises ProgramError if it is not whole or was altered."""
    return load(Path(folder))


def load_prefill(folder: str | Path, decode: Program) -> Program | None:
    """Read the prefill program beside the decode program of a folder, None if there is none beside it.

    Raises ProgramError if it is not whole or was altered.
    """
    if decode.manifest["prefill"] in (0, decode.manifest["chunk"]):
        return None
    return load(Path(folder) / PREFILL)


def check_program(program: Program, progress: Progress = quiet, stage: str = "check") -> dict[int, Report]:
    """The report of every context bucket; nothing is raised."""
    reports: dict[int, Report] = {}
    contexts = program.manifest["contexts"]
    for i, context in enumerate(contexts):
        progress(stage, i, len(contexts))
        reports[context] = check(program, context)
    return reports
