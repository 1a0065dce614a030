"""llama-3.1-70b on one LPX rack, all placement strategies: seconds, memory, and the best against the default.

The comparison is `lpu compare`; every argument that is not of this file goes to it. For other topologies:
--rack lpx,lpx-16x16,benchmarks/torus_256.yaml --tp 8.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

from measure import machine, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--context", default="8192")
    parser.add_argument("--seeds", default="5")
    parser.add_argument("--budget", default="100000")
    args, rest = parser.parse_known_args()
    print(machine() + "\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = ["-o", folder] if "-o" not in rest else []
        words = [
            "--rack",
            args.rack,
            "--context",
            args.context,
            "--seeds",
            args.seeds,
            "--budget",
            args.budget,
        ]
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "lpu", "compare", args.model, *words, "--json", *out, *rest],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        ) as ran:
            peak = Peak(ran.pid)
            text, _ = ran.communicate()
        seconds = time.perf_counter() - start
    if ran.returncode:
        sys.exit(ran.returncode)
    body = json.loads(text)
    for one in body["racks"]:
        default, *points = one["points"]
        good = [point for point in points if not point["error"]]
        best = min(point["latency_cycles"] for point in good)
        show(f"{one['rack']}: points with a program", len(good), f"of {len(points)}", digits=0)
        show(f"{one['rack']}: default of compile (modelled)", default["microseconds"], "us")
        show(f"{one['rack']}: best of the default", best / default["latency_cycles"], "x", 1, 4)
        show(f"{one['rack']}: rank agreement", one["rank_agreement"], "(Spearman)", digits=3)
    for line in body["rankings"]:
        print(line)
    show("seconds", seconds, "s", 900)
    show("most memory of all its processes", peak.gb, "GB", 4)


class Peak:
    """The most memory that a process and its descendants held together, looked at twice a second (Linux)."""

    def __init__(self, pid: int) -> None:
        self.gb = 0.0
        Thread(target=self._watch, args=(pid,), daemon=True).start()

    def _watch(self, pid: int) -> None:
        while Path(f"/proc/{pid}").exists():
            self.gb = max(self.gb, sum(map(_held, _family(pid))) / 1e9)
            time.sleep(0.5)


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


def _held(pid: int) -> int:
    """Bytes of a process, pages that it shares counted by its share."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
