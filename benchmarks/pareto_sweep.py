"""A sweep of slack x tp x pp against the default and `pareto`: what dominates the one, what lies outside.

Every point is kept in a file as soon as it is known, and is not made again: stop and start it at will.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import machine

from compiler.errors import CompileError
from compiler.options import CompileOptions
from lpu import api
from lpu.inputs.files import read_rack
from lpu.report.throughput import Throughput, of
from lpu.sweep.front import front

SLACKS = (
    1.0,
    1.2,
    1.5,
    2.0,
    2.5,
    3.0,
    3.5,
    4.0,
    4.5,
    5.0,
    5.5,
    5.9,
    6.5,
    7.0,
    8.0,
    9.0,
    10.0,
    12.0,
    14.0,
    16.0,
)
NEAR = 0.01  # a point so little beyond the front counts as on it: schedules of neighbouring intervals differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--kv", default="fp8")
    parser.add_argument("--tp", type=int, nargs="+", default=[8, 16])
    parser.add_argument(
        "--pp", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="sixteenths of groups left out"
    )
    parser.add_argument("--users", type=int)
    parser.add_argument("--points", default="pareto-points.jsonl", help="file that points are kept in")
    args = parser.parse_args()
    print(machine() + "\n")
    rack = read_rack(args.rack)
    model = api.open_model(args.model, context=[args.context], kv=args.kv, weights="none")
    path = Path(args.points)
    known: dict[str, dict[str, Any] | None] = {}
    if path.exists():
        known = dict(json.loads(line) for line in path.read_text().splitlines())
    start, made = time.process_time(), 0

    def measure(options: CompileOptions) -> Throughput | None:
        nonlocal made
        about = (args.model, args.rack, args.context, args.kv, options.objective)
        key = " ".join(map(str, (*about, options.tp, options.pp, options.users, options.interval_slack)))
        if key not in known:
            made += 1
            try:
                program = api.compile(model, rack=rack, options=options, check=False, prove=False).program
                known[key] = asdict(of(program, args.context))
            except CompileError:
                known[key] = None
            with path.open("a") as file:
                file.write(json.dumps([key, known[key]]) + "\n")
        found = known[key]
        return None if found is None else Throughput(**found)

    def fitting(options: CompileOptions) -> Throughput:
        if (one := measure(options)) is None:
            raise CompileError("sweep", "a point", "does not fit", "See its options.")
        return one

    waves = CompileOptions(objective="throughput", users=args.users)
    best = front(fitting, waves, rack.chips)
    default = measure(waves)
    points: list[Throughput] = []
    for tp in args.tp:
        groups = rack.chips // tp
        for pp in [max(1, groups - part * max(1, groups // 16)) for part in args.pp]:
            for slack in SLACKS:
                one = measure(CompileOptions(objective="throughput", users=args.users, tp=tp, pp=pp,
                                             interval_slack=slack))  # fmt: skip
                points += [one] if one else []
    count = len(args.tp) * len(args.pp) * len(SLACKS)
    outside = [one for one in points if not any(_reaches(two, one) for two in best)]
    over = [one for one in points if default and _beats(one, default)]
    print("| program | step | interval | users | tokens/s | each |\n|" + "---|" * 6)
    for one in best:
        print(
            f"| {one.name} | {one.cycles:,} | {one.interval:,} | {one.users} | {one.tokens_per_second:,.0f} "
            f"| {one.tokens_per_second_of_sequence:,.0f} |"
        )
    print(
        f"\n{count} points of the sweep, {len(points)} of them fit; {made} made now in "
        f"{time.process_time() - start:.0f} CPU s"
    )
    print(f"outside pareto by more than {NEAR:.0%}: {len(outside)} (goal 0)", *(one.name for one in outside))
    print(f"dominate the default by more than {NEAR:.0%}: {len(over)} (goal 0)", *(one.name for one in over))


def _reaches(one: Throughput, other: Throughput) -> bool:
    """Whether one is as good as the other in both, but for what is near."""
    return (
        one.tokens_per_second >= (1 - NEAR) * other.tokens_per_second
        and one.tokens_per_second_of_sequence >= (1 - NEAR) * other.tokens_per_second_of_sequence
    )


def _beats(one: Throughput, other: Throughput) -> bool:
    """Whether one is better in both, by more than what is near."""
    return (
        one.tokens_per_second > (1 + NEAR) * other.tokens_per_second
        and one.tokens_per_second_of_sequence > (1 + NEAR) * other.tokens_per_second_of_sequence
    )


if __name__ == "__main__":
    main()
