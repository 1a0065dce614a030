"""llama-3.1-405b for four LPX racks: seconds and peak memory of the compile, then of its check."""

import argparse
import time

from measure import machine, peak_gb, show

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from lpu import api
from lpu.check.check import check
from lpu.report.occupancy import occupancy

SECONDS = 60  # compile and check together
GB = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-405b")
    parser.add_argument("--rack", default="lpx-x4")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--tp", type=int, default=8)
    args = parser.parse_args()
    print(machine() + "\n")

    start = time.perf_counter()
    model = api.open_model(args.model, context=[args.context])
    opened = time.perf_counter()
    show("open the model (shapes only)", opened - start, "s")
    show("peak memory before compiling", peak_gb(), "GB")
    program = compile_program(model.source(), load_rack(args.rack), CompileOptions(tp=args.tp))
    compiled = time.perf_counter()
    show("compile", compiled - opened, "s")
    show("peak memory of the compile", peak_gb(), "GB", GB)
    report = check(program, args.context)
    checked = time.perf_counter()
    show("check", checked - compiled, "s")
    show("compile and check", checked - start, "s", SECONDS)
    show("peak memory with the check", peak_gb(), "GB", GB)
    groups = program.manifest.groups
    print(f"\n{len(groups)} groups of {len(groups[0])} chips; {report}")
    print(occupancy(program, args.context))


if __name__ == "__main__":
    main()
