"""llama-3.1-70b at context 8192 for one LPX rack: compile and check seconds, memory, modelled latency."""

import argparse
import time

from measure import machine, peak_gb, show

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from lpu import api
from lpu.check.check import check
from lpu.report.occupancy import occupancy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--tp", type=int, help="chips per group; the fastest that fits if not given")
    parser.add_argument("--pp", type=int, help="groups; as few as fit if not given")
    args = parser.parse_args()
    print(machine() + "\n")

    start = time.perf_counter()
    model = api.open_model(args.model, context=[args.context])
    traced = time.perf_counter()
    program = compile_program(model.source(), load_rack(args.rack), CompileOptions(tp=args.tp, pp=args.pp))
    compiled = time.perf_counter()
    memory = peak_gb()
    report = check(program, args.context)
    checked = time.perf_counter()
    show("open the model (shapes only)", traced - start, "s")
    show("compile", compiled - traced, "s")
    show("check", checked - compiled, "s")
    show("check per million rows", (checked - compiled) * 1e6 / report.rows, "s")
    show("open, compile and check", checked - start, "s", 10)
    show("peak memory of the compile", memory, "GB", 2)
    show("peak memory with the check", peak_gb(), "GB", 2)
    groups = program.manifest.groups
    print(f"\n{len(groups)} groups of {len(groups[0])} chips; {report}")
    print(occupancy(program, args.context))


if __name__ == "__main__":
    main()
