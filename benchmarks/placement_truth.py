"""Make compiler/place/truth.json: small placement problems, proved by exhaustive search and by CP-SAT."""

import argparse
import json
import time
from dataclasses import asdict, replace

from compiler.place.groups import tables_of
from compiler.place.registry import search
from compiler.place.truth import FILE, ProvedProblem, Shape, drawn

SHAPES: tuple[Shape, ...] = ("chain", "diamonds", "experts")
SIZES = ((4, 2), (6, 2), (8, 3), (10, 3), (12, 4), (14, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4_000_000, help="of the exhaustive search, per case")
    args = parser.parse_args()
    proved: list[ProvedProblem] = []
    for shape in SHAPES:
        for i, (blocks, trays) in enumerate(SIZES):
            case = drawn(shape, blocks, trays, i % 2, args.seed)
            found: dict[str, int] = {}
            at: tuple[int, ...] = ()
            times: list[float] = []
            for who, budget in (("exhaustive", args.steps), ("cpsat", 200_000)):
                cost, start = case.cost(), time.perf_counter()
                placement = search(who, cost.shards, cost.rack, cost, 0, budget)
                times.append(time.perf_counter() - start)
                if cost.proved:
                    found[who] = cost.estimate(placement).value
                    groups = tables_of(cost).groups
                    at = at or tuple(groups.index(tuple(row)) for row in placement.tolist())
            assert len(set(found.values())) == 1, f"{case.name}: {found}"
            print(f"{case.name:<18}{found} {times[0]:.2f} s {times[1]:.2f} s", flush=True)
            proved.append(replace(case, optimum=min(found.values()), at=at, proved_by=tuple(found)))
    FILE.write_text(
        json.dumps({"schema": "lpu-placement-truth/1", "cases": list(map(asdict, proved))}) + "\n"
    )


if __name__ == "__main__":
    main()
