"""Runs the tasks of a comparison in processes or on a Dask cluster; a point is kept when it is finished."""

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from multiprocessing import get_context, parent_process
from os import _exit as end_at_once
from threading import Thread
from typing import Any

from lpu.compare.point import Point, Task, key, measure
from lpu.compare.results import Results
from lpu.folder import Progress
from lpu.inputs.document import FileError

POLL_SECONDS = 5.0
WORKERLESS_SECONDS = 30.0  # that a cluster may be without a worker


def run_tasks(
    tasks: Sequence[Task], kept: Results, jobs: int, scheduler: str | None, progress: Progress
) -> list[Point]:
    """The points of the tasks, in their order; points that are kept are reused. Raises FileError."""
    keys = [key(task) for task in tasks]
    left = {name: task for name, task in zip(keys, tasks, strict=True) if name not in kept.points}
    progress("compare", len(tasks) - len(left), len(tasks))
    if left:
        compute = _cluster(scheduler) if scheduler else _processes(jobs)
        with closing(compute([asdict(task) for task in left.values()])) as found:
            names = list(left)
            for i, body in found:
                kept.keep(names[i], asdict(left[names[i]]), body)
                done = sum(name in kept.points for name in keys)
                progress(f"compare {body['strategy']}", done, len(tasks))
    return [Point(**kept.points[name]) for name in keys]


Compute = Callable[[list[dict[str, Any]]], Generator[tuple[int, dict[str, Any]]]]


def _processes(jobs: int) -> Compute:
    """Computes points in local processes, in the order in which they finish."""

    def compute(tasks: list[dict[str, Any]]) -> Generator[tuple[int, dict[str, Any]]]:
        if jobs == 1:
            yield from ((i, measure(task)) for i, task in enumerate(tasks))
            return
        pool = ProcessPoolExecutor(
            min(jobs, len(tasks)), mp_context=get_context("spawn"), initializer=_end_with_parent
        )
        try:
            futures = {pool.submit(measure, task): i for i, task in enumerate(tasks)}
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise FileError(
                "compare: a process was killed, perhaps for its memory. Give --jobs 1, or -o to keep points."
            ) from None
        except (Exception, GeneratorExit):
            raise
        except BaseException:  # told to stop: nobody waits for the points in progress
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    return compute


def _end_with_parent() -> None:
    """Of a worker: end when the comparison does, however it ended."""
    parent = parent_process()
    if parent is not None:
        Thread(target=lambda: (parent.join(), end_at_once(1)), daemon=True).start()


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
        for name in [one for one in logging.root.manager.loggerDict if one.startswith("distributed")]:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what they say comes with the errors
        try:
            client = library.Client(address)
        except (OSError, ValueError) as error:
            raise FileError(f"compare: --scheduler {address}: cannot be reached ({error}).") from None
        with client:
            index = {future: i for i, future in enumerate(client.map(measure, tasks, pure=False))}
            try:
                yield from _finished(library, client, index, address)
            except Exception as error:
                if not (isinstance(error, OSError) or type(error).__module__.startswith("distributed")):
                    raise
                reason = " ".join(str(error).split())[:90] or "no reason given"
                raise FileError(
                    f"compare: --scheduler {address}: {type(error).__name__}: {reason}. Points so far are "
                    "kept with -o: start the cluster, and give the same command again."
                ) from None

    return compute


def _finished(
    library: Any, client: Any, index: Mapping[Any, int], address: str
) -> Generator[tuple[int, dict[str, Any]]]:
    """The results of futures as they come. Raises FileError if the cluster has no worker for a while."""
    left, seen = dict(index), time.monotonic()
    while left:
        try:
            done = library.wait(list(left), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            if client.status != "running":
                raise ConnectionError("the scheduler is gone") from None
            if client.scheduler_info(n_workers=-1)["workers"]:
                seen = time.monotonic()
            elif time.monotonic() - seen > WORKERLESS_SECONDS:
                raise FileError(
                    f"compare: --scheduler {address}: no worker for {WORKERLESS_SECONDS:.0f} s, {len(left)} "
                    f"of {len(index)} points are missing. Start workers, and give the same command again."
                ) from None
            continue
        for future in done:
            yield left.pop(future), future.result()
