"""Where an output NAME is made: a folder `.NAME.lpu` beside it, of one process at a time.

It holds `lock`, which the system frees when its process ends, however it ends; `new`, what is being written;
`ready`, what is whole and changes places with NAME; `was`, NAME on its way there where that takes two steps.
Whoever holds the lock next makes an end of what a dead process left: nothing that is not ours is removed.
"""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from lpu.inputs.document import FileError
from lpu.outputs.exchange import exchange, move_new
from lpu.outputs.ours import foreign
from lpu.outputs.stop import unstopped

LOCK, NEW, READY, WAS = "lock", "new", "ready", "was"
MARK = b"lpu "  # how the text of a lock begins
END = ".lpu"
_HELD: dict[Path, tuple[int, list[Path]]] = {}  # of this process: the lock, the folders made for it


@contextmanager
def workspace(path: Path, option: str = "-o") -> Generator[Path]:
    """The workspace of an output. What the block leaves in `new` or `ready` is removed after it.

    Raises FileError if another process holds it or it is not ours, OSError if it cannot be made.
    """
    home = home_of(path)
    with unstopped():  # a signal comes before all of this or after it
        made = _make_parents(path.parent)
        try:
            sweep(path.parent)
            lock = _hold(home)
            if lock is None:
                holder = _holder(home)
                raise FileError(
                    f"{path}: another lpu{holder} is writing it. Wait for it, or choose another {option}."
                )
        except (OSError, FileError):
            _unmake(made)
            raise
        _HELD[home] = lock, made
    try:
        _settle(home)
        yield home
        made.clear()
    finally:
        leave(home)


def leave(*homes: Path) -> None:
    """Make an end of workspaces that this process holds, of all of them if none is named.

    Whoever is told to end calls it last: a signal's exception can come before a block that has been left has
    done so itself.
    """
    with unstopped():
        for home in homes or tuple(_HELD):
            if home in _HELD:
                lock, made = _HELD.pop(home)
                _leave(home, lock)
                _unmake(made)


def place(home: Path, path: Path, option: str = "-o") -> None:
    """Give what `new` holds its name. What had it before is looked at once more, and kept if it is not ours.

    Raises FileError then.
    """
    ready = home / READY
    with unstopped():
        (home / NEW).rename(ready)
        try:
            move_new(ready, path)
        except FileExistsError:
            exchange(ready, path, home / WAS)
            if said := foreign(ready, option):
                exchange(ready, path, home / WAS)
                raise FileError(said.replace(str(ready), str(path))) from None


def sweep(folder: Path) -> None:
    """Clear the workspaces in a folder whose processes are dead; all others are left alone."""
    with suppress(OSError):
        for home in folder.glob(f".*{END}"):
            with suppress(OSError, FileError):
                if (home / LOCK).read_bytes()[: len(MARK)] == MARK and (lock := _hold(home)) is not None:
                    _settle(home)
                    _leave(home, lock)


def home_of(path: Path) -> Path:
    """The workspace of an output."""
    return path.with_name(f".{path.name}{END}")


def _name_of(home: Path) -> Path:
    """The output of a workspace."""
    return home.with_name(home.name.removeprefix(".").removesuffix(END))


def _make_parents(folder: Path) -> list[Path]:
    """The folders that had to be made, the innermost first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _unmake(made: list[Path]) -> None:
    """Remove the folders that had to be made, those that are empty."""
    for folder in made:
        with suppress(OSError):
            folder.rmdir()


def _hold(home: Path) -> int | None:
    """The lock of a workspace, made if there is none; None if another process holds it."""
    while True:
        home.mkdir(exist_ok=True)
        _require_ours(home)
        try:
            lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:  # its process has just left
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.stat(home / LOCK)
            if os.path.samestat(there, os.fstat(lock)):
                os.truncate(lock, 0)
                os.pwrite(lock, MARK + f"process {os.getpid()}\n".encode(), 0)
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        os.close(lock)


def _require_ours(home: Path) -> None:
    names = {path.name for path in home.iterdir()}
    if home.is_symlink() or names - {LOCK, NEW, READY, WAS} or (names and LOCK not in names):
        raise FileError(f"{home}: is not a folder of lpu's, and its name is needed. Move it away.")


def _holder(home: Path) -> str:
    """` (process N)` of the holder of a lock, "" if it has just left."""
    with suppress(OSError, UnicodeDecodeError):
        words = (home / LOCK).read_bytes().removeprefix(MARK).decode().strip()
        return f" ({words})" if words else ""
    return ""


def _settle(home: Path) -> None:
    """Bring what was moved and is not ours back under its name, and remove all else but the lock."""
    path, was, ready = _name_of(home), home / WAS, home / READY
    if os.path.lexists(was):
        if not os.path.lexists(path):
            was.rename(path)
        elif not os.path.lexists(ready):
            was.rename(ready)
    if os.path.lexists(ready) and foreign(ready):
        try:
            move_new(ready, path)
        except FileExistsError:
            exchange(ready, path, was)
    if os.path.lexists(ready) and not foreign(ready):
        _remove(ready)
    _remove(home / NEW)


def _leave(home: Path, lock: int) -> None:
    """Settle, and remove the workspace: the lock at last."""
    try:
        with suppress(OSError):
            _settle(home)
            if {path.name for path in home.iterdir()} == {LOCK}:
                (home / LOCK).unlink()
                home.rmdir()
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
