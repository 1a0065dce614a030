"""Several seeds of one machine: here, in processes, or on a Dask cluster; the outcomes are the same.

Each seed is a simulation of its own, so how they are spread changes nothing but the time that they take.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from lpu.cluster import on_cluster
from lpu.folder import Progress
from lpu.inputs.document import FileError
from lpu.traffic.outcome import Outcome
from lpu.traffic.readers.drawn import DrawnTraffic
from lpu.traffic.served import Served
from lpu.traffic.simulation.simulate import simulate
from lpu.traffic.trace import Trace

Task = tuple[Trace | DrawnTraffic, int | None, Served]


def replay_seed(task: Task) -> Outcome:
    """The outcome of one seed."""
    source, seed, machine = task
    return simulate(source if isinstance(source, Trace) else source.trace(seed), machine)


def replay_seeds(
    tasks: Sequence[Task], jobs: int, scheduler: str | None, progress: Progress
) -> list[Outcome]:
    """The outcomes of tasks, in their order. Raises FileError for processes or a cluster that fail."""
    if scheduler is not None:
        return _on_cluster(tasks, scheduler)
    found: list[Outcome] = []
    if jobs == 1 or len(tasks) == 1:
        for i, task in enumerate(tasks):
            progress("replay", i, len(tasks))
            found.append(replay_seed(task))
        return found
    try:
        with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context("spawn")) as pool:
            for outcome in pool.map(replay_seed, tasks):
                found.append(outcome)
                progress("replay", len(found), len(tasks))
    except BrokenProcessPool:
        raise FileError("replay: a process was killed, perhaps for its memory. Give --jobs 1.") from None
    return found


def _on_cluster(tasks: Sequence[Task], address: str) -> list[Outcome]:
    found = on_cluster(
        "replay", address, replay_seed, tasks, "Start the cluster, and give the command again."
    )
    return [outcome for _, outcome in sorted(found, key=lambda one: one[0])]
