"""Runs the tasks of a comparison in processes or on a Dask cluster; a point is kept when it is finished."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from multiprocessing import get_context, parent_process
from os import _exit as end_at_once
from threading import Thread
from typing import Any

from lpu.cluster import on_cluster
from lpu.compare.point import Point, Task, key, measure
from lpu.compare.results import Results
from lpu.folder import Progress
from lpu.inputs.document import FileError


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
    remedy = "Points so far are kept with -o: start the cluster, and give the same command again."
    return lambda tasks: on_cluster("compare", address, measure, tasks, remedy)
