"""A 1.2B Llama on all 256 chips of an LPX rack: how long to compile, check, link and run it here.

The decode step is held against a plain jitted f32 JAX decode of the same weights, steps taken in turn in this
process; its logits against the reference, bit by bit. `--help` lists the options.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import numpy as np
from measure import machine, peak_gb, show

from compiler.options import CompileOptions
from lpu import api
from lpu.certify.equivalence import difference
from lpu.decode.decoders import machine_of, plain_decode, reference_decode, restart
from lpu.decode.generate import Generation, generate, replay
from lpu.link.link import link

PROMPT = [1, 15_043, 29_892, 3_186]
COMPILE = "/jax/core/compile/"  # jaxpr tracing, lowering to MLIR, XLA itself


def main() -> None:
    args = arguments()
    print(machine())
    spent: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: spent.append(duration_secs) if event.startswith(COMPILE) else None
    )
    start = time.perf_counter()
    options = CompileOptions(tp=args.tp, pp=args.pp, layout=args.layout, placement=args.placement)
    compiled = api.compile(
        args.model, rack=args.rack, options=options, context=[args.context], batch=args.batch
    )
    took = time.perf_counter() - start
    program = compiled.program
    cycles = program.manifest.cycles[args.context]
    print(f"program   {program.manifest.digest[:16]}: {compiled.reports[args.context]}")
    print(f"modelled  {cycles:,} cycles a token, {cycles * 1e6 / program.manifest.clock_hz:.2f} us\n")
    show("compile and check", took, "s", 20)
    show("peak memory until then", peak_gb(), "GB", 4)

    columns, loads = program.expand(args.context), program.loads()
    start = time.perf_counter()
    link(program.manifest, loads, columns)
    show("link", time.perf_counter() - start, "s", 1)

    start = time.perf_counter()
    decode = restart(machine_of(program, compiled.model))
    show("weights into SRAM, with a second link", time.perf_counter() - start, "s")
    spent.clear()
    decode(np.zeros(args.batch, np.int32), np.zeros(args.batch, np.int32))
    show("trace, lower and XLA compile", sum(spent), "s", 5)

    plain = plain_decode(compiled.model)
    plain(np.zeros(args.batch, np.int32), np.zeros(args.batch, np.int32))
    run, ours, theirs = in_turn(decode, plain, [PROMPT] * args.batch, args.tokens, args.batch)
    show("decode step", 1e3 * median(ours), "ms", digits=1)
    show("plain jitted f32 JAX decode step", 1e3 * median(theirs), "ms", digits=1)
    show("ratio", median(ours) / median(theirs), "x", 3.5)
    del decode, plain

    reference = replay(reference_decode(compiled.model), run, args.batch)
    wrong = difference(run, reference)
    print(f"{sum(rows.size for rows in run.logits):,} logits: {wrong or 'bits equal to the reference'}")


def in_turn(
    decode: Callable[..., Any], plain: Callable[..., Any], prompts: list[list[int]], tokens: int, batch: int
) -> tuple[Generation, list[float], list[float]]:
    """Decode, with the plain step taken on the same tokens after each step; seconds of both."""
    ours: list[float] = []
    theirs: list[float] = []

    def both(fed: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        begin = time.perf_counter()
        out = decode(fed, at)
        middle = time.perf_counter()
        plain(fed, at)
        ours.append(middle - begin)
        theirs.append(time.perf_counter() - middle)
        return out

    return generate(both, prompts, tokens, batch), ours, theirs


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="llama-1.2b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--pp", type=int, default=32)
    parser.add_argument("--layout", default="column")
    parser.add_argument("--placement", default="contiguous")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
