"""Simulated annealing of llama-3.1-70b on the 256 chips of an LPX rack: seconds of a million moves.

Then twice again in other processes under other hash seeds: the bytes must be the same.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time

from measure import machine, show

from compiler.options import CompileOptions
from compiler.place.cost import CostModel
from compiler.place.measure import shards_of
from compiler.place.registry import search
from compiler.source import traced
from fabric.rack import load_rack
from lpu import api


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--moves", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alpha", type=int, default=0)
    parser.add_argument("--once", action="store_true", help="print the digest of the placement, nothing else")
    args = parser.parse_args()
    source, rack = api.open_model(args.model, context=[args.context]).source(), load_rack(args.rack)
    model = traced(source)
    shards = shards_of(model.plan(rack, CompileOptions(tp=args.tp)), model.blocks, rack, args.tp, "column")
    cost = CostModel(shards, rack, args.alpha)
    start = time.perf_counter()
    placement = search("annealing", shards, rack, cost, args.seed, args.moves)
    seconds = time.perf_counter() - start
    digest = hashlib.sha256(placement.astype("<i8").tobytes()).hexdigest()
    if args.once:
        print(digest)
        return
    print(machine() + "\n")
    show(f"{args.moves:,} moves, tables included", seconds, "s", 20)
    show("valid evaluations per second", cost.evaluations / seconds, "/s", digits=0)
    first, last = cost.best[0][1], cost.best[-1][1]
    show("cost of the DP that it starts from", first, "cycles", digits=0)
    show("cost of the best (cost model)", last, "cycles", first, digits=0)
    for hash_seed in ("1", "2"):
        again = subprocess.run(
            [sys.executable, *sys.argv, "--once"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        same = "the same bytes" if again == digest else "OTHER BYTES"
        print(f"another process, PYTHONHASHSEED={hash_seed}: {same} ({again[:16]})")


if __name__ == "__main__":
    main()
