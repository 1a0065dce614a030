"""One token of llama-3.1-70b with real math, on a machine that cannot hold it: seconds, memory, bits.

The program's token (open, compile, link, weights from the seed, logits) and the reference's (the Flax
modules, layer by layer) run one after the other, each in a process of its own. `--help` lists the options.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from measure import machine, peak_gb, show

from compiler.options import CompileOptions
from lpu import api
from lpu.decode.decoders import machine_of, reference_decode
from lpu.run.streamed.stream import StreamedMachine

COMPILE = "/jax/core/compile/"  # jaxpr tracing, lowering to MLIR, XLA itself
GOALS: dict[str, tuple[float | None, float | None]] = {"program": (150, 8), "reference": (None, None)}


def main() -> None:
    args = arguments()
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    print(f"{machine()}\nload      {os.getloadavg()[0]:.1f} before the start\n", flush=True)
    digests: list[str] = []
    for part, (seconds, gigabytes) in GOALS.items():
        found = in_process(part)
        show(f"{part}: one token, cold process", found["seconds"], "s", seconds)
        for name, value in found["of_that"].items():
            show(f"  {name}", value, "s")
        show(f"{part}: CPU time of all threads", found["cpu_seconds"], "s")
        show(f"{part}: peak memory", found["peak_gb"], "GB", gigabytes)
        print(f"{part}: token {found['token']}, {found['logits']:,} logits, sha256 {found['digest']}\n")
        digests.append(found["digest"])
    equal = digests[0] == digests[1]
    print(f"bits of the logits: {'equal' if equal else 'NOT EQUAL'}")
    raise SystemExit(not equal)


def in_process(part: str) -> dict[str, Any]:
    """What one part printed, and the wall clock of its process from start to end."""
    start = time.perf_counter()
    command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": time.perf_counter() - start}


def program(args: argparse.Namespace) -> dict[str, Any]:
    xla: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: xla.append(duration_secs) if event.startswith(COMPILE) else None
    )
    start = time.perf_counter()
    compiled = api.compile(
        args.model,
        rack=args.rack,
        options=CompileOptions(tp=args.tp),
        context=[args.context],
        check=args.check,
    )
    made = time.perf_counter()
    ready = machine_of(compiled.program, compiled.model, stream=True)
    assert isinstance(ready, StreamedMachine)
    xla.clear()
    linked = time.perf_counter()
    result = ready.step(ready.start(), [args.token], [0])
    end = time.perf_counter()
    of_that = {
        "open, trace and compile": made - start,
        "link, cut and pack": linked - made,
        "the token": end - linked,
        "  trace, lower and XLA compile": sum(xla),
        "  waiting for weights": ready.waited_seconds,
    }
    return figures(result.logits, result.token, of_that)


def reference(args: argparse.Namespace) -> dict[str, Any]:
    start = time.perf_counter()
    decode = reference_decode(api.open_model(args.model, context=[args.context]), stream=True)
    opened = time.perf_counter()
    logits, token = decode(np.array([args.token], np.int32), np.zeros(1, np.int32))
    return figures(logits, token, {"open": opened - start, "the token": time.perf_counter() - opened})


def figures(logits: np.ndarray, token: np.ndarray, of_that: dict[str, float]) -> dict[str, Any]:
    return {
        "of_that": of_that,
        "cpu_seconds": time.process_time(),
        "peak_gb": peak_gb(),
        "token": int(token[0]),
        "logits": logits.size,
        "digest": hashlib.sha256(np.ascontiguousarray(logits, "<f4").tobytes()).hexdigest(),
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "program": program,
    "reference": reference,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--token", type=int, default=15_043)
    parser.add_argument("--check", action="store_true", help="check the program too")
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
