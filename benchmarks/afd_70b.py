"""Large models in the three modes of GPU and LPU together: seconds here, TTFT, TPOT, bytes, memory.

llama-3.1-70b with a prefill on 8 H200 and its decode on one LPX rack; llama-3.1-405b with attention on 16
H200 and FFNs on four racks; llama-3.1-70b on 8 H200, drafted by llama-3.1-8b on one rack. Each is `lpu afd`
in a cold process, its programs checked. Cycles are exact, GPUs and links modelled, all of it a projection; no
weight is read. The exit code is that of the first verb that fails.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import machine, show

from compiler.graph.capture import capture
from compiler.split import split
from lpu.inputs.model import of_micro_batch
from lpu.inputs.open import open_model

COMMON = ("--prompt-tokens", "8192", "--gpu", "h200")
CASES: tuple[tuple[str, float, tuple[str, ...]], ...] = (
    ("pd", 60, ("llama-3.1-70b", "--mode", "pd", "--gpus", "8", "--rack", "lpx", "--batch", "1")),
    (
        "afd",
        180,
        (
            *("llama-3.1-405b", "--mode", "afd", "--gpus", "16", "--rack", "lpx-x4"),
            *("--batch", "8", "--micro-batches", "2"),
        ),
    ),
    (
        "draft",
        60,
        (
            *(
                "llama-3.1-70b",
                "--mode",
                "draft",
                "--drafter",
                "llama-3.1-8b",
                "--gpus",
                "8",
                "--rack",
                "lpx",
            ),
            *("--batch", "1"),
        ),
    ),
)
CHILD = (
    "import resource, sys\n"
    "from lpu.cli.app import main\n"
    "try:\n"
    "    code = main()\n"
    "finally:\n"
    "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    "sys.exit(code)\n"
)


def main() -> None:
    print(machine())
    for mode, goal, words in CASES:
        print(f"\nlpu afd {' '.join((*words, *COMMON))}")
        body, seconds, peak = ran((*words, *COMMON))
        show("seconds (measured)", seconds, "s", goal)
        show("most memory (measured)", peak, "GB", 4)
        told(mode, body)
        if mode == "afd":
            divided(words[0], rows=4)


def ran(words: tuple[str, ...]) -> tuple[dict[str, Any], float, float]:
    """What the verb reports, its seconds, and the most memory that it held in GB."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "afd", *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])},
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(done.returncode)
    kilobytes = int(done.stderr.split()[-1])
    return json.loads(done.stdout), seconds, kilobytes * 1024 / 1e9


def told(mode: str, body: dict[str, Any]) -> None:
    """Times part by part with how each is known, and what crosses."""
    turn = body["turns"][-1]
    on = body["machine"]
    print(f"{on['gpus']}, {on['lpus']}, {on['bridge']}; digest {on['digest'][:16]}")
    if "split" in on:
        print(f"split {on['split']} (exact)")
    for name, whole, parts in (
        ("TTFT", "ttft_seconds", "ttft"),
        ("TPOT", "tpot_seconds", "tpot"),
    ):
        shares = ", ".join(
            f"{part['name']} {1000 * part['seconds']:,.3f} ({part['kind']})" for part in turn[parts]
        )
        print(f"{name:<6}{1000 * turn[whole]:>12,.3f} ms = {shares}")
    layer = "round" if mode == "draft" else "layer"
    shares = ", ".join(f"{p['name']} {1e6 * p['seconds']:,.1f} ({p['kind'][0]})" for p in body["layer"])
    print(f"{layer:<6}{'':>9} us: {shares}")
    for name, count in turn["crossed_bytes"].items():
        print(f"bytes  {name} {count:,} a turn of {turn['new_tokens']} new tokens (exact)")
    for figure in body["figures"]:
        value = figure["value"] if isinstance(figure["value"], str) else f"{figure['value']:,.4g}"
        print(f"       {figure['name']}: {value} {figure['unit']} ({figure['kind']})")
    for warning in body["warnings"]:
        print(f"warns  {warning}")
    print(f"label  {body['label']}", flush=True)


def divided(model: str, rows: int) -> None:
    """The bytes of a step's two sides, of a micro-batch of `rows`; prefill needs all weights on the GPUs."""
    source = of_micro_batch(open_model(model, batch=rows, context=(8704,)), rows).source()
    graph = capture(source.step, source.params, source.tokens, source.position, source.cache)
    found = split(graph)
    hop = found.hops[0]
    print(
        f"split  {len(found.hops)} hops of {found.rows} rows (exact): {found.weight_bytes / 1e9:.1f} GB of "
        f"weights on the LPUs; of a step {found.gpu_weight_bytes / 1e9:.1f} GB of weights and "
        f"{found.kv_bytes / 1e9:.1f} GB of KV on the GPUs; a row goes down as {hop.down_bytes // rows:,} "
        f"bytes ({hop.wire_down}) and up as {hop.up_bytes // rows:,} ({hop.wire_up}), once a layer"
    )


if __name__ == "__main__":
    main()
