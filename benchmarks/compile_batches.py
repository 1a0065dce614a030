"""Batch 1 to 64: where a step stops being bound by SRAM and begins to be bound by products and links."""

import argparse

from measure import machine

from compiler.options import CompileOptions
from lpu import api
from lpu.report.occupancy import occupancy

NAMES = ("installs", "products", "MXM geometry", "links", "critical path", "busy units")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--batches", default="1,2,4,8,16,32,64")
    args = parser.parse_args()
    print(machine() + "\n")
    print("modelled cycles of a step, and the lower bounds beside it")
    print(
        f"{'batch':>6}{'cycles':>10}{'/ batch':>10}" + "".join(f"{name:>15}" for name in NAMES) + "   quality"
    )
    for batch in map(int, args.batches.split(",")):
        made = api.compile(
            args.model,
            rack=args.rack,
            options=CompileOptions(tp=args.tp),
            context=[args.context],
            batch=batch,
        )
        used = occupancy(made.program, args.context)
        bounds = {bound.name: bound.cycles for bound in used.bounds}
        print(
            f"{batch:>6}{used.cycles:>10,}{used.cycles // batch:>10,}"
            + "".join(f"{bounds[name]:>15,}" for name in NAMES)
            + f"{used.quality:>10.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
