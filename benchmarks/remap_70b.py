"""Remaps of llama-3.1-70b on lpx: every chip dead in turn and seeded pairs of links, with their user CPU.

    python benchmarks/remap_70b.py [--chips 0,17,255] [--links 200] [--check] [--context 8192]

Prints a line for each remap, then the median and the worst change of the step and the worst user CPU.
"""

import argparse
from statistics import median
from time import process_time

import numpy as np

from fabric.rack import load_rack
from lpu import api
from lpu.folder import check_program


def cases(chips: str | None, links: int) -> list[tuple[str, ...]]:
    """Faults: of each chip alone, then of two links drawn by a seed."""
    rack = load_rack("lpx")
    some = range(rack.chips) if chips is None else [int(word) for word in chips.split(",") if word]
    found: list[tuple[str, ...]] = [(f"chip:{chip}",) for chip in some]
    cables = np.flatnonzero(rack.links.a < rack.links.b)
    random = np.random.default_rng(0)
    for _ in range(links):
        drawn = random.choice(cables, 2, replace=False).tolist()
        found.append(tuple(f"link:{rack.links.a[row]}-{rack.links.b[row]}" for row in drawn))
    return found


def main() -> None:
    """Remap them all."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--chips")
    asked.add_argument("--links", type=int, default=200)
    asked.add_argument("--context", type=int, default=8192)
    asked.add_argument("--check", action="store_true")
    given = asked.parse_args()
    model = api.open_model("llama-3.1-70b", context=given.context, weights="none")
    parent = api.compile(model, prove=False, check=False).program
    rows: list[tuple[int, float, str]] = []
    for faults in cases(given.chips, given.links):
        start = process_time()
        found = api.remap(parent, faults)
        seconds = process_time() - start
        if given.check:
            assert all(report.ok for report in check_program(found.program).values()), faults
        moved = found.moves.bytes_from("DDR5") + found.moves.bytes_from("link")
        name = " ".join(faults)
        rows.append((found.delta_cycles, seconds, name))
        print(
            f"{name:<28} {found.way:<7} {found.delta_cycles:>+8,} cycles  {moved / 1e9:6.2f} GB  "
            f"{1e3 * found.cycles / found.rack.chip.clock_hz:7.2f} ms to serving  {seconds:5.2f} s user CPU"
        )
    deltas = sorted(rows)
    worst, slow = deltas[-1], max(rows, key=lambda row: row[1])
    print(
        f"{len(rows)} remaps: median {median(row[0] for row in rows):+,.0f} cycles, "
        f"worst {worst[0]:+,} ({worst[2]}), best {deltas[0][0]:+,} ({deltas[0][2]}); "
        f"user CPU median {median(row[1] for row in rows):.2f} s, worst {slow[1]:.2f} s ({slow[2]}), measured"
    )


if __name__ == "__main__":
    main()
