"""llama-tiny on racks whose chips are called by other numbers: cycles of the worst over those of the best.

For each rack and kind of program: the rack by its levels (the irregular one by its links) and 20 seeded
relabellings of it, link by link; and the seconds that a rack of 256 chips takes to be numbered.
"""

import sys
import time
from pathlib import Path

from measure import machine, show

from fabric.numbering import numbering
from fabric.rack import load_rack


def main() -> None:
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "corpora"))
    from renumbered import KINDS, RACKS, SEEDS, cycles, relabelled

    print(machine() + "\n")
    print(f"{'rack':<12}{'program':<12}{'least':>10}{'most':>10}{'most/least':>12}")
    for name, made in RACKS.items():
        for kind in KINDS:
            rack = made()
            took = [cycles(rack, kind), *(cycles(relabelled(rack, seed), kind) for seed in range(SEEDS))]
            ratio = max(took) / min(took)
            print(f"{name:<12}{kind:<12}{min(took):>10,}{max(took):>10,}{ratio:>12.3f}", flush=True)
    print()
    for name in ("lpx", "lpx-16x16"):
        rack = relabelled(load_rack(name, "tiny"), 0)
        start = time.perf_counter()
        numbering(rack)
        show(f"{name} link by link: number its chips", time.perf_counter() - start, "s")


if __name__ == "__main__":
    main()
