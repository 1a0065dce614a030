"""Tasks computed on the user's Dask cluster: results as they come, and one line for whatever dies of it."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from lpu.inputs.document import FileError

POLL_SECONDS = 5.0
WORKERLESS_SECONDS = 30.0  # that a cluster may be without a worker
T = TypeVar("T")
R = TypeVar("R")


def on_cluster(
    verb: str, address: str, function: Callable[[T], R], tasks: Sequence[T], remedy: str
) -> Generator[tuple[int, R]]:
    """(place of the task, its result), in the order in which they finish.

    verb: as in the first word of errors. remedy: what to do, of a cluster that died on the way. Raises
    FileError if dask.distributed is missing, nothing answers, or the cluster dies or has no worker for a
    while.
    """
    try:
        import distributed  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise FileError(
            f"{verb}: --scheduler needs dask.distributed. pip install 'lpu-emulator[distributed]'."
        ) from None
    library: Any = distributed
    for name in [one for one in logging.root.manager.loggerDict if one.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what they say comes with the errors
    try:
        client = library.Client(address)
    except (OSError, ValueError) as error:
        raise FileError(f"{verb}: --scheduler {address}: cannot be reached ({error}).") from None
    with client:
        try:
            yield from _finished(library, client, client.map(function, tasks, pure=False), verb, address)
        except Exception as error:
            if not (isinstance(error, OSError) or type(error).__module__.startswith("distributed")):
                raise
            reason = " ".join(str(error).split())[:90] or "no reason given"
            raise FileError(
                f"{verb}: --scheduler {address}: {type(error).__name__}: {reason}. {remedy}"
            ) from None


def _finished(
    library: Any, client: Any, futures: Sequence[Any], verb: str, address: str
) -> Generator[tuple[int, Any]]:
    """The results of futures as they come. Raises FileError if the cluster has no worker for a while."""
    left, seen = {future: i for i, future in enumerate(futures)}, time.monotonic()
    while left:
        found = _some(library, list(left))
        for future, result in found:
            yield left.pop(future), result
        if found:
            continue
        if client.status != "running":
            raise ConnectionError("the scheduler is gone")
        if client.scheduler_info(n_workers=-1)["workers"]:
            seen = time.monotonic()
        elif time.monotonic() - seen > WORKERLESS_SECONDS:
            raise FileError(
                f"{verb}: --scheduler {address}: no worker for {WORKERLESS_SECONDS:.0f} s, {len(left)} "
                f"of {len(futures)} points are missing. Start workers, and give the same command again."
            )


def _some(library: Any, left: list[Any]) -> list[tuple[Any, Any]]:
    """Some futures and their results, none if none came for POLL_SECONDS.

    A result lies with its worker until it is asked for: one whose worker died meanwhile is not waited for,
    since the cluster computes it again.
    """
    try:
        done = library.wait(left, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
        return [(future, future.result(timeout=POLL_SECONDS)) for future in done]
    except TimeoutError:
        return []
