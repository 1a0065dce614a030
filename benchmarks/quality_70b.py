"""llama-3.1-70b on lpx: cycles of a step over its largest lower bound, per layout, context and batch.

The table of docs/bounds.md. The larger groups take minutes; `--cases` picks some.
"""

import argparse
import time
from dataclasses import dataclass

from measure import machine, peak_gb

from compiler.options import CompileOptions
from lpu import api
from lpu.report.occupancy import occupancy


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
    print(
        "case context batch kv    tp  groups    cycles        us     bound  cycles / bound  goal  compile, s"
    )
    for number in map(int, args.cases.split(",")):
        case = CASES[number]
        start = time.perf_counter()
        made = api.compile(
            args.model,
            rack=args.rack,
            options=CompileOptions(tp=case.tp),
            check=not args.no_check,
            context=[case.context],
            batch=case.batch,
            kv=case.kv,
        )
        seconds = time.perf_counter() - start
        used = occupancy(made.program, case.context)
        bound = max(bound.cycles for bound in used.bounds)
        print(
            f"{number:>4}{case.context:>8}{case.batch:>6} {case.kv:<5}{case.tp:>4}"
            f"{len(made.program.manifest.groups):>8}{used.cycles:>10,}{used.microseconds:>10.1f}{bound:>10,}"
            f"{used.quality:>16.3f}{case.goal:>6.2f}{seconds:>18.1f}",
            flush=True,
        )
    print(f"\nmodelled; peak memory {peak_gb():.2f} GB")


if __name__ == "__main__":
    main()
