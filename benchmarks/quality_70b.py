"""llama-3.1-70b on lpx: cycles of a step over its largest lower bound, per layout, context and batch.

The table of docs/bounds.md. The larger groups take minutes; `--cases` picks some.
"""

import argparse
from dataclasses import dataclass

from measure import machine, peak_gb

from compiler.analyse.chain import WAITS, chain_totals
from compiler.options import CompileOptions
from lpu import api
from lpu.report.occupancy import occupancy

BOUNDS = ("installs", "products", "critical path", "busy units")
COLUMNS = (
    *("context", "batch", "kv", "tp", "groups", "cycles", "us"),
    *(*BOUNDS, "cycles / largest", "goal", "waits"),
)


@dataclass(frozen=True)
class Case:
    context: int
    batch: int
    kv: str
    tp: int
    goal: float = 1.25


CASES = (
    Case(8192, 1, "fp16", 8, 1.15),
    Case(8192, 1, "fp16", 16),
    Case(8192, 1, "fp16", 64),
    Case(8192, 1, "fp16", 256),
    Case(8192, 4, "fp16", 8),
    Case(8192, 4, "fp16", 16),
    Case(8192, 4, "fp16", 64),
    Case(131072, 1, "fp8", 8),
    Case(131072, 1, "fp8", 16),
    Case(131072, 1, "fp8", 64),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--cases", default=",".join(map(str, range(len(CASES)))), help="numbers 0,1,2")
    parser.add_argument("--no-check", action="store_true")
    args = parser.parse_args()
    print(machine() + "\n")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for number in map(int, args.cases.split(",")):
        case = CASES[number]
        made = api.compile(
            args.model,
            rack=args.rack,
            options=CompileOptions(tp=case.tp),
            check=not args.no_check,
            prove=False,
            context=[case.context],
            batch=case.batch,
            kv=case.kv,
        )
        used = occupancy(made.program, case.context)
        bounds = {bound.name: f"{bound.cycles:,}" for bound in used.bounds}
        totals = chain_totals(used.chains)
        waits = sum(cycles for part, cycles in totals.items() if part in WAITS.values())
        cells = (
            *(case.context, case.batch, case.kv, case.tp, len(made.program.manifest.groups)),
            *(f"{used.cycles:,}", f"{used.microseconds:.1f}"),
            *(bounds[name] for name in BOUNDS),
            *(f"**{used.quality:.3f}**", f"{case.goal:g}", f"{100 * waits / used.cycles:.1f} %"),
        )
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(f"\nmodelled; peak memory {peak_gb():.2f} GB")


if __name__ == "__main__":
    main()
