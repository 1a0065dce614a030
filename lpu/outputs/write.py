"""Folders and files that lpu writes: whole or not at all, and only over what it wrote itself."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lpu.inputs.document import FileError
from lpu.outputs.ours import foreign, sealed_json, write_list
from lpu.outputs.workspace import NEW, place, workspace


@contextmanager
def atomic_folder(
    path: str | Path, option: str = "-o", kept: type[Exception] | tuple[()] = ()
) -> Generator[Path]:
    """A new folder to write into, which becomes `path` when the block ends well and vanishes otherwise.

    A folder that is there is replaced only if it is empty, or lpu wrote it and all that it holds: that is
    looked at now and once more in the end. kept: of errors after which the folder is kept as it is.
    Raises FileError.
    """
    target = check_folder(path, option)
    try:
        with workspace(target, option) as home:
            (home / NEW).mkdir()
            try:
                yield home / NEW
            except kept:
                _finish(home, target, option)
                raise
            _finish(home, target, option)
    except OSError as error:
        raise _unwritable(target, error) from error


def write_json(path: str | Path, value: dict[str, Any], option: str = "-o") -> None:
    """Write an object as a sealed JSON file. Raises FileError."""
    write_file(path, sealed_json(value), option)


def write_file(path: str | Path, data: bytes, option: str = "-o") -> None:
    """Write a file that `foreign` will know again: whole, or as it was before. Raises FileError."""
    check_writable(path, option)
    target = _resolved(path, option)
    try:
        with workspace(target, option) as home:
            (home / NEW).write_bytes(data)
            place(home, target, option)
    except OSError as error:
        raise _unwritable(target, error) from error


def check_writable(path: str | Path, option: str = "-o") -> None:
    """Raise FileError if a file could not be written there, before a long run has its result."""
    target = _resolved(path, option)
    try:
        _check_parent(target, path, option, usable=not target.is_dir())
        if said := foreign(target, option):
            raise FileError(said)
    except OSError as error:
        raise _unwritable(target, error) from error


def check_folder(path: str | Path, option: str = "-o") -> Path:
    """The folder that a path names, which may be written or replaced now. Raises FileError."""
    target = _resolved(path, option)
    try:
        _check_parent(target, path, option)
        if os.path.lexists(target) and not target.is_dir():
            raise FileError(f"{target}: is a file, not a folder. Choose another {option}.")
        if said := foreign(target, option):
            raise FileError(said)
        if Path.cwd().is_relative_to(target):
            raise FileError(
                f"{target}: you are in this folder, it would be moved away under you. "
                f"Choose a folder in it: {option} {os.path.join(path, 'NAME')}."
            )
    except OSError as error:
        raise _unwritable(target, error) from error
    return target


def _check_parent(target: Path, path: str | Path, option: str, usable: bool = True) -> None:
    """Raise FileError unless the innermost folder that is there can be written into."""
    folder = next(one for one in (target.parent, *target.parents) if one.exists())
    if not (usable and folder.is_dir() and os.access(folder, os.W_OK)):
        raise FileError(f"output: {path}: cannot be written. Choose another {option}.")


def _finish(home: Path, target: Path, option: str) -> None:
    write_list(home / NEW)
    place(home, target, option)


def _resolved(path: str | Path, option: str) -> Path:
    """The path without links and dots."""
    if not str(path):
        raise FileError(f"output: {option} names nothing. Give a path, or leave {option} out.")
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # no such folder any more, a circle of links, a NUL
        raise FileError(f"output: {option} {str(path)[:80]!r}: cannot be written ({error}).") from error


def _unwritable(path: Path, error: OSError) -> FileError:
    shown = path if len(str(path)) < 120 else f"{str(path)[:120]}..."
    return FileError(f"{shown}: cannot be written: {error.strerror or error}")
