"""A program folder: written atomically, read back, checked bucket by bucket.

A prefill program lies in the folder `prefill` of the decode program that it shares its memory image with, the
programs that move its KV to and from GPUs in the folders `ingest` and `egress`, the one that brings its
weights in from DDR5 in the folder `switch`.
"""

from collections.abc import Callable
from pathlib import Path

from compiler.program.manifest import Move, Switch
from compiler.program.program import Program
from compiler.program.store import load, save
from lpu.check.check import Report, check, require
from lpu.check.memory_image import pair
from lpu.inputs.document import FileError
from lpu.inputs.foreign import foreign
from lpu.outputs.write import atomic_folder
from models.extensions import load_extensions

PREFILL, INGEST, EGRESS, SWITCH = "prefill", "ingest", "egress", "switch"
Progress = Callable[[str, int, int], None]


def quiet(stage: str, done: int, total: int) -> None:
    """No progress reports."""


def save_program(
    program: Program,
    folder: str | Path,
    prefill: Program | None = None,
    ingest: Program | None = None,
    egress: Program | None = None,
) -> None:
    """Write a program folder atomically. Raises FileError if it cannot be written."""
    with atomic_folder(folder) as part:
        save_into(part, program, prefill, ingest, egress)


def save_into(
    folder: Path,
    program: Program,
    prefill: Program | None = None,
    ingest: Program | None = None,
    egress: Program | None = None,
    switch: Program | None = None,
) -> None:
    """Write a program, and its prefill, ingest, egress and switch programs, into an existing folder."""
    save(program, folder)
    for name, other in ((PREFILL, prefill), (INGEST, ingest), (EGRESS, egress), (SWITCH, switch)):
        if other is not None:
            (folder / name).mkdir()
            save(other, folder / name)


def load_program(folder: str | Path) -> Program:
    """Read a program folder. Raises ProgramError if it is not whole or was altered."""
    load_extensions()
    if not (Path(folder) / "manifest.json").is_file() and (what := foreign(Path(folder))):
        raise FileError(f"program: {what}")
    return load(Path(folder))


def load_step(folder: str | Path) -> Program:
    """Read the folder of a program that computes, not one that moves KV. Raises ProgramError or FileError."""
    return need_step(load_program(folder), str(folder))


def need_step(program: Program, name: str) -> Program:
    """The program, if it computes. Raises FileError for one that moves KV, by what the caller calls it."""
    if isinstance(body := program.manifest.body, Move | Switch):
        what = "weights" if isinstance(body, Switch) else "KV"
        raise FileError(
            f"{name}: this program moves {what} ({body.kind}) and computes no step. "
            "Give the program folder that it lies in."
        )
    return program


def load_prefill(folder: str | Path, decode: Program) -> Program | None:
    """Read the prefill program of a folder with a decode program; None if it has no prefill program.

    Raises ProgramError if it is not whole or was altered.
    """
    if decode.manifest.prefill in (0, decode.manifest.chunk):
        return None
    return load(Path(folder) / PREFILL)


def load_handover(folder: str | Path) -> tuple[Program | None, Program | None]:
    """Read the ingest and the egress program of a folder; None for a missing one.

    Raises ProgramError if one is not whole or was altered.
    """
    ingest, egress = (
        load(Path(folder) / name) if (Path(folder) / name).is_dir() else None for name in (INGEST, EGRESS)
    )
    return ingest, egress


def load_switch(folder: str | Path) -> Program | None:
    """Read the program of a folder that brings its weights in; None for a missing one.

    Raises ProgramError if it is not whole or was altered.
    """
    return load(Path(folder) / SWITCH) if (Path(folder) / SWITCH).is_dir() else None


def require_legal(program: Program, prefill: Program | None = None, progress: Progress = quiet) -> None:
    """Check a program and its prefill program, and that they have one memory. Raises HazardError."""
    reports = [*check_program(program, progress).values()]
    if prefill is not None:
        reports += [*check_program(prefill, progress, "check prefill").values(), pair(program, prefill)]
    for report in reports:
        require(report)


def check_program(program: Program, progress: Progress = quiet, stage: str = "check") -> dict[int, Report]:
    """The report of every context bucket; nothing is raised."""
    reports: dict[int, Report] = {}
    contexts = program.manifest.contexts
    for i, context in enumerate(contexts):
        progress(stage, i, len(contexts))
        reports[context] = check(program, context)
    return reports
