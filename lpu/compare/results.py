"""The results folder of a comparison: every point is a line of `points.jsonl` that carries its own sha256.

A comparison takes the points that it finds there and computes the missing ones. It holds the file meanwhile:
two comparisons never share a folder. A line that a killed comparison did not finish is dropped.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lpu.compare.point import Point
from lpu.inputs.document import FileError

POINTS, SCHEMA = "points.jsonl", "lpu-points-3"  # 1 had no schema in its lines, 2 no sha256
Body = dict[str, Any]


class Results:
    """Points by key, those of a folder to begin with; in memory only if there is no file."""

    def __init__(self, points: dict[str, Body], file: BinaryIO | None = None) -> None:
        self.points, self._file = points, file

    def keep(self, key: str, task: Body, point: Body) -> None:
        """Add a point, on the disk too before this returns. Raises FileError if it cannot be written."""
        self.points[key] = point
        if self._file is None:
            return
        entry = {"schema": SCHEMA, "key": key, "task": task, "point": point}
        try:
            self._file.write(json.dumps(entry | {"sha256": _seal(entry)}).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(Path(self._file.name).parent, error) from error


@contextmanager
def results(folder: Path | None) -> Generator[Results]:
    """The points of a folder, made if it is missing, for as long as the block lasts. None: none are kept.

    Raises FileError if another process holds them, a line was altered, or the folder cannot be written.
    """
    if folder is None:
        yield Results({})
        return
    made = not folder.exists()
    path = folder / POINTS
    with _open(path) as file:
        _hold(path, file)
        try:
            yield Results(_read(path, file), file)
        finally:
            with suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()
                if made:
                    folder.rmdir()


def _open(path: Path) -> BinaryIO:
    try:
        if path.exists() and not path.is_file():
            raise FileError(f"{path}: is no file. Choose another -o.")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab+")
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> FileError:
    return FileError(f"{str(folder)[:120]}: cannot be written ({error.strerror or error}).")


def _hold(path: Path, file: BinaryIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise FileNotFoundError
    except (BlockingIOError, FileNotFoundError):  # held, or removed by its holder just now
        raise FileError(
            f"{path}: another comparison is writing it. Wait for its end, or choose another -o."
        ) from None


def _read(path: Path, file: BinaryIO) -> dict[str, Body]:
    """The points by key; the file is cut after its last whole line."""
    file.seek(0)
    data = file.read()
    whole = data.rfind(b"\n") + 1
    points: dict[str, Body] = {}
    for number, line in enumerate(data[:whole].splitlines(), 1):
        if line:
            key, _, point = _entry(f"{path}:{number}", line)
            points[key] = point
    if whole < len(data):
        if not whole and not data.startswith(b'{"schema": "lpu-points-'):
            raise _altered(f"{path}:1")
        file.truncate(whole)
    return points


def kept_points(folder: Path) -> list[tuple[Body, Body]]:
    """Tasks and points of a results folder, which is only read. Raises FileError of altered lines."""
    path = folder / POINTS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}).") from None
    whole = [(i, line) for i, line in enumerate(lines, 1) if line.endswith(b"\n") and line.strip()]
    return [(task, point) for i, line in whole for _, task, point in (_entry(f"{path}:{i}", line),)]


def _entry(place: str, line: bytes) -> tuple[str, Body, Body]:
    """Key, task and point of a line. Raises FileError if its sha256 is not that of the rest."""
    try:
        entry = json.loads(line)
        schema, stated = entry.get("schema"), entry.pop("sha256", None)
        if schema == SCHEMA and stated == _seal(entry):
            Point(**entry["point"])
            return str(entry["key"]), entry["task"], entry["point"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _altered(place) from None
    if schema != SCHEMA:
        raise FileError(
            f"{place}: schema is {repr(schema)[:40]}, this version reads {SCHEMA!r}. "
            "Remove the file, or name another folder: `lpu compare -o DIR` makes it anew."
        )
    raise _altered(place)


def _altered(place: str) -> FileError:
    return FileError(
        f"{place}: its sha256 is not that of the line: it was altered. Remove the line, and its point is "
        "computed again; or name another folder with -o."
    )


def _seal(entry: Body) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
