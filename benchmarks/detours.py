"""What detours save: a large transfer over the shortest tree, and dealt over several, both scheduled.

512 tokens of 8192 fp16 columns are 8.4 MB. The prototypes of the facts (scheduling.md section 4) had one lane
between two chips: 645 us for 8.4 MB from chip to chip, 21.5 us with one hop of detour.
"""

import argparse

import numpy as np
from measure import machine

from compiler.lower.rows import Kernels, RowBuilder
from compiler.program.isa import F16_LANES, Op
from compiler.route.detour import Send, Tree, deal
from compiler.route.route import Router
from compiler.schedule.list_schedule import schedule
from fabric.rack import Rack, load_rack


def cycles(rack: Rack, router: Router, sends: list[Send], trees: list[list[Tree]], batch: int) -> int:
    """Scheduled length of all sends, line by line, each line over its tree."""
    rows, line = RowBuilder(), 0
    for send, mine in zip(sends, trees, strict=True):
        for tree in mine:
            for edge in tree:
                op = Op.SEND if edge.parent == send.source else Op.FORWARD
                rows.add(op, rank=edge.parent, peer=edge.child, n=1, src_tag=line, dst_tag=line)
            line += 1
    return schedule(rows.build(), Kernels(), router, rack.chip, batch).cycles


def compared(
    rack: Rack, sources: list[int], targets: list[int], lines: int, batch: int
) -> tuple[int, int, int]:
    """(cycles over the shortest trees, cycles dealt, trees in use)."""
    router = Router(rack, tuple(range(rack.chips)))
    shares = np.diff(np.arange(len(sources) + 1) * lines // len(sources)).tolist()
    sends = [
        Send(s, tuple(t for t in targets if t != s), n, 4) for s, n in zip(sources, shares, strict=True) if n
    ]
    shortest = [[router.tree(send.source, send.targets)] * send.lines for send in sends]
    before = cycles(rack, router, sends, shortest, batch)
    dealt = deal(router, sends, batch)
    if dealt is None:
        return before, before, len(sends)
    return before, cycles(rack, router, sends, dealt, batch), sum(len(set(trees)) for trees in dealt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--racks", default="lpx,lpx-16x16")
    parser.add_argument("--columns", type=int, default=8192)
    args = parser.parse_args()
    print(machine() + "\n")
    lines = -(-args.columns // F16_LANES)
    print(
        f"{'rack':10} {'transfer':30} {'tokens':>6} {'shortest us':>11} {'dealt us':>8} {'trees':>5} faster"
    )
    for name in args.racks.split(","):
        rack = load_rack(name)
        tray, other = (list(rack.levels[0].groups[i]) for i in (0, 1))
        cases = {
            "chip to chip, one tray": (tray[:1], tray[1:2]),
            "chip to chip, two trays": (tray[:1], other[-1:]),
            "tray to tray, to all its chips": (tray, other),
        }
        for words, (sources, targets) in cases.items():
            for tokens in (1, 8, 64, 512):
                before, after, trees = compared(rack, sources, targets, lines, tokens)
                us = [f"{1e6 * n / rack.chip.clock_hz:.2f}" for n in (before, after)]
                times = f"{before / after:.2f}"
                print(f"{name:10} {words:30} {tokens:6} {us[0]:>11} {us[1]:>8} {trees:5} {times:>6}")


if __name__ == "__main__":
    main()
