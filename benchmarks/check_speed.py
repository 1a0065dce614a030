"""How fast the independent checker reads a program: rows of the expanded 70b program per second."""

import argparse
import time
from statistics import median

from measure import machine, peak_gb, show

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from lpu import api
from lpu.check.check import check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(machine() + "\n")

    model = api.open_model(args.model, context=[args.context])
    program = compile_program(model.source(), load_rack(args.rack), CompileOptions(tp=args.tp))
    before = peak_gb()
    seconds: list[float] = []
    cpu: list[float] = []
    rows = 0
    for _ in range(args.repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        report = check(program, args.context)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
        rows = report.rows
        assert report.ok, report
    start = time.perf_counter()
    program.expand(args.context)
    expanding = time.perf_counter() - start
    show("rows, expanded", rows / 1e6, "M", digits=3)
    show("first check", seconds[0], "s")
    show(f"check, median of {args.repeats}", median(seconds), "s")
    show("expansion alone, part of it", expanding, "s")
    show("rows a second", rows / median(seconds) / 1e6, "M/s")
    show("for a million rows, median", 1e6 * median(seconds) / rows, "s", 1)
    show("for a million rows, slowest", 1e6 * max(seconds) / rows, "s", 1)
    show("for a million rows, fastest", 1e6 * min(seconds) / rows, "s", 1)
    show("  processor time, first", 1e6 * cpu[0] / rows, "s", 1)
    show("  processor time, median", 1e6 * median(cpu) / rows, "s", 1)
    show("peak memory of the compile", before, "GB")
    show("peak memory with the checks", peak_gb(), "GB")


if __name__ == "__main__":
    main()
