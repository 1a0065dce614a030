"""llama-3.1-70b on one LPX rack with a new step every interval: interval over bound, seconds, memory."""

import argparse
import time
from typing import Any

from measure import machine, peak_gb

from compiler.errors import CompileError
from compiler.options import CompileOptions
from lpu import api
from lpu.check.check import check, require
from lpu.report.throughput import of

CASES: tuple[tuple[int, int, str], ...] = ((8192, 1, "fp16"), (8192, 4, "fp16"), (131072, 1, "fp8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--slack", type=float)
    args = parser.parse_args()
    print(machine() + "\n")
    options = CompileOptions(tp=args.tp, objective="throughput", interval_slack=args.slack)
    print(
        "| context | batch | kv | bound | interval | / bound | step us | users | tokens/s | at the interval "
        "| compile s | check s | GB |\n|" + "---|" * 13
    )
    for context, batch, kv in CASES:
        chosen: dict[str, Any] = {"context": [context], "batch": batch, "kv": kv}
        start = time.perf_counter()
        try:
            made = api.compile("llama-3.1-70b", rack=args.rack, options=options, check=False, **chosen)
        except CompileError as error:
            print(f"| {context} | {batch} | {kv} | {error} |", flush=True)
            continue
        compiled = time.perf_counter()
        require(check(made.program, context))
        checked = time.perf_counter()
        one = of(made.program, context)
        bound = one.bound or 1
        print(
            f"| {context} | {batch} | {kv} | {bound:,} | {one.interval:,} | {one.interval / bound:.3f} "
            f"| {one.cycles * 1e6 / one.clock_hz:.1f} | {one.users * batch} | {one.tokens_per_second:,.0f} "
            f"| {one.tokens_per_second_of_interval:,.0f} | {compiled - start:.1f} | {checked - compiled:.1f} "
            f"| {peak_gb():.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
