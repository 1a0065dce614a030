"""llama-3.1-70b on one LPX rack, all placement strategies: seconds, memory, and the best against the default.

The comparison is `lpu compare`; every argument that is not of this file goes to it. For other topologies:
--rack lpx,lpx-16x16,benchmarks/torus_256.yaml --tp 8.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import cores, machine, show


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
        ran = subprocess.run(
            [sys.executable, "-m", "lpu", "compare", args.model, *words, "--json", *out, *rest],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
        )
        seconds = time.perf_counter() - start
    body = json.loads(ran.stdout)
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
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    show(f"memory, {cores() + 1} x the largest process", (cores() + 1) * child, "GB", 4)


if __name__ == "__main__":
    main()
