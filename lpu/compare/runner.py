"""Runs the tasks of a comparison in processes or on a Dask cluster; saves every point when it is finished.

The results folder holds `points.jsonl`, one line per point: schema, key, task and point. A restarted
comparison computes only missing points; a killed one loses the points in progress.
"""

import json
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lpu.compare.point import Point, Task, key, measure
from lpu.folder import Progress
from lpu.inputs.document import FileError

POINTS, SCHEMA = "points.jsonl", "lpu-points-2"  # 1 had no schema in its lines


def run_tasks(
    tasks: Sequence[Task], folder: Path | None, jobs: int, scheduler: str | None, progress: Progress
) -> list[Point]:
    """The points of the tasks, in their order; points in the folder are reused. Raises FileError."""
    keys = [key(task) for task in tasks]
    known = {} if folder is None else _kept(folder)
    left = {name: task for name, task in zip(keys, tasks, strict=True) if name not in known}
    progress("compare", len(tasks) - len(left), len(tasks))
    if left:
        compute = _cluster(scheduler) if scheduler else _processes(jobs)
        with closing(compute([asdict(task) for task in left.values()])) as found:
            names = list(left)
            for i, body in found:
                known[names[i]] = body
                if folder is not None:
                    _keep(folder, names[i], asdict(left[names[i]]), body)
                done = sum(name in known for name in keys)
                progress(f"compare {body['strategy']}", done, len(tasks))
    return [Point(**known[name]) for name in keys]


Compute = Callable[[list[dict[str, Any]]], Generator[tuple[int, dict[str, Any]]]]


def _processes(jobs: int) -> Compute:
    """Computes points in local processes, in the order in which they finish."""

    def compute(tasks: list[dict[str, Any]]) -> Generator[tuple[int, dict[str, Any]]]:
        if jobs == 1:
            yield from ((i, measure(task)) for i, task in enumerate(tasks))
            return
        pool = ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context("spawn"))
        try:
            futures = {pool.submit(measure, task): i for i, task in enumerate(tasks)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise FileError(
                "compare: a process was killed, perhaps for its memory. Give --jobs 1, or -o to keep points."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)

    return compute


def _cluster(address: str) -> Compute:
    """Computes points on a Dask cluster, in the order in which they finish."""
    try:
        import distributed  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise FileError(
            "compare: --scheduler needs dask.distributed. pip install 'lpu-emulator[distributed]'."
        ) from None
    library: Any = distributed

    def compute(tasks: list[dict[str, Any]]) -> Generator[tuple[int, dict[str, Any]]]:
        try:
            client = library.Client(address)
        except (OSError, ValueError) as error:
            raise FileError(f"compare: --scheduler {address}: cannot be reached ({error}).") from None
        with client:
            futures = client.map(measure, tasks, pure=False)
            index = {future.key: i for i, future in enumerate(futures)}
            for future in library.as_completed(futures):
                yield index[future.key], future.result()

    return compute


def _kept(folder: Path) -> dict[str, dict[str, Any]]:
    """The points in the folder by key; a truncated last line is ignored."""
    path = folder / POINTS
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            _check_schema(path, entry.get("schema"))
            Point(**entry["point"])
            found[entry["key"]] = entry["point"]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def _check_schema(path: Path, schema: object) -> None:
    if schema != SCHEMA:
        raise FileError(
            f"{path}: schema is {schema!r}, this version reads {SCHEMA!r}. "
            "Remove it, or name another folder: `lpu compare -o DIR` makes it anew."
        )


def _keep(folder: Path, name: str, task: dict[str, Any], body: dict[str, Any]) -> None:
    """Append one line; a truncated line before it is ended first."""
    path = folder / POINTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                broken = file.read(1) != b"\n"
            else:
                broken = False
            text = json.dumps({"schema": SCHEMA, "key": name, "task": task, "point": body}) + "\n"
            file.write((("\n" if broken else "") + text).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FileError(f"{folder}: cannot be written ({error.strerror or error}).") from error
