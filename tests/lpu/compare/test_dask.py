"""A real Dask cluster of one worker: its points, and what is said when a part of it dies."""

import json
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

# Runs `lpu` with patience for a test, and kills process argv[1] (0: none) as soon as two points are kept.
DRIVER = """
import os, signal, sys
from lpu import cluster
from lpu.cli.app import main
from lpu.compare.results import Results
cluster.POLL_SECONDS, cluster.WORKERLESS_SECONDS = 0.5, 2.0
whole, victim = Results.keep, int(sys.argv[1])
def keep(self, *args):
    whole(self, *args)
    if len(self.points) == 2 and victim:
        os.kill(victim, signal.SIGKILL)
Results.keep = keep
sys.exit(main(sys.argv[2:]))
"""
SECONDS = 240


class Cluster(NamedTuple):
    address: str
    scheduler: int
    worker: int


@contextmanager
def started(*words: str) -> Generator[subprocess.Popen[bytes]]:
    """A process of Dask, ended with the block whatever happens."""
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=nowhere, stderr=nowhere)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[Cluster]:
    file = tmp_path / "scheduler.json"
    here = ("--host", "127.0.0.1", "--no-dashboard")
    with ExitStack() as stack:
        scheduler = stack.enter_context(
            started("scheduler", *here, "--port", "0", "--scheduler-file", str(file))
        )
        end = time.monotonic() + SECONDS
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < end, "no scheduler"
            time.sleep(0.2)
        worker = stack.enter_context(
            started("worker", *here, "--no-nanny", "--nthreads", "1", "--scheduler-file", str(file))
        )
        yield Cluster(json.loads(file.read_text())["address"], scheduler.pid, worker.pid)


def compared(cluster: Cluster, victim: int, folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["compare", "llama-tiny", "--rack", "quad", "--tp", "2", "--strategies", "contiguous,annealing"]
    words += ["--seeds", "3", "--budget", "50", "-o", str(folder), "--scheduler", cluster.address]
    return subprocess.run(
        [sys.executable, "-c", DRIVER, str(victim), *words],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed comparison says."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [one for one in done.stderr.splitlines() if "error" in one]
    assert len(line) <= 300
    return line


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line_and_another_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "points"
    line = the_line(compared(cluster, cluster.worker, folder))
    assert "no worker for 2 s, 3 of 4 points are missing" in line
    kept = len((folder / "points.jsonl").read_text().splitlines())
    with started(
        "worker", "--host", "127.0.0.1", "--no-dashboard", "--no-nanny", "--scheduler-file",
        str(tmp_path / "scheduler.json"),
    ):  # fmt: skip
        again = compared(cluster, 0, folder)  # goes on where it stopped
    assert again.returncode == 0, again.stderr
    assert kept < len((folder / "points.jsonl").read_text().splitlines())


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    line = the_line(compared(cluster, cluster.scheduler, tmp_path / "points"))
    assert "start the cluster, and give the same command again" in line
