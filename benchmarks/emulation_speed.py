"""Cycles of the modelled machine emulated per second of wall clock, with the model's real math.

Beside them what other open emulators publish. `--only NAME` measures one case.
"""

import argparse
import time
from statistics import median

import numpy as np
from measure import machine, peak_gb, show

from compiler.options import CompileOptions
from compiler.program.program import Program
from lpu import api
from lpu.decode.decoders import machine_of, restart

CASES = {
    "llama-tiny": ("quad", CompileOptions(tp=4), 256),
    "llama-1.2b": ("lpx", CompileOptions(tp=8, pp=32, placement="contiguous"), 1024),
}
PEERS = """\
peers     one chip, tick by tick: 2.2 k to 7.8 k cycles/s with data, 55 k without data (published by peers,
          tick models of the kind of FTLPU-CMODEL; quoted, not measured here)
remark    the figures differ in kind: a tick model computes every unit in every cycle, this emulator links
          the scheduled program and executes the dataflow that its addresses and cycles imply. Which cycle
          each result is committed in is checked and linked once per program, not stepped through."""


def main() -> None:
    args = arguments()
    print(machine() + "\n" + PEERS)
    for name, (rack, options, context) in CASES.items():
        if args.only in (None, name):
            measure(name, rack, options, context, args.tokens)


def measure(name: str, rack: str, options: CompileOptions, context: int, tokens: int) -> None:
    compiled = api.compile(name, rack=rack, options=options, context=[context])
    program = compiled.program
    manifest = program.manifest
    cycles, chips = manifest.cycles[context], chips_used(program, context)
    decode = restart(machine_of(program, compiled.model))
    seconds: list[float] = []
    for step in range(tokens + 1):
        start = time.perf_counter()
        decode(np.array([step % 256], np.int32), np.array([step], np.int32))
        seconds.append(time.perf_counter() - start)
    step = median(seconds[1:])  # the first one compiles
    print(f"\n{name} on {rack}, {chips} chips used, {cycles:,} modelled cycles a token, context {context}")
    show("decode step, measured", 1e3 * step, "ms", digits=1)
    show("emulated, measured", cycles / step / 1e3, "k cycles/s", digits=1)
    show("emulated, measured", cycles * chips / step / 1e6, "M chip-cycles/s", digits=2)
    show("peak memory", peak_gb(), "GB")


def chips_used(program: Program, context: int) -> int:
    """Chips that execute at least one row of a step."""
    return len(np.unique(program.expand(context).chip))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=sorted(CASES))
    parser.add_argument("--tokens", type=int, default=9, help="steps measured, of which the median counts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
