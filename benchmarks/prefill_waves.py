"""A prompt of the whole context in chunks: in waves through the groups, beside one after another."""

import argparse
import time
from typing import Any

from measure import machine

from compiler.errors import CompileError
from compiler.program.prompt import whole_prompt
from lpu import api
from lpu.check.check import check, require

GOAL_MS = 40.0  # of 8192 tokens of llama-3.1-70b on lpx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--chunks", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--pp", type=int, nargs="+", default=[0, 28], help="groups; 0: as few as fit")
    args = parser.parse_args()
    print(machine() + "\n")
    print(
        "| chunk | groups | a decode step | a chunk | interval | its bound | the prompt, cycles | ms "
        "| one after another, ms | CPU s |\n|" + "---|" * 10
    )
    model, best = api.open_model(args.model, context=[args.context], weights="none"), 0.0
    for chunk, pp in [(chunk, pp) for chunk in args.chunks for pp in args.pp]:
        start, chosen = time.process_time(), dict[str, Any](rack=args.rack, tp=args.tp, pp=pp or None)
        try:
            made = api.compile(model, prefill=chunk, check=False, **chosen)
            plain = api.compile(model, prefill=chunk, check=False, waves=False, **chosen)
        except CompileError as error:
            print(f"| {chunk} | {pp or 'least'} | {error} |", flush=True)
            continue
        assert made.prefill is not None
        assert plain.prefill is not None
        seconds, manifest = time.process_time() - start, made.prefill.manifest
        require(check(made.prefill, args.context))
        runs, serial = (
            whole_prompt(manifest, args.context),
            whole_prompt(plain.prefill.manifest, args.context),
        )
        waves, total = manifest.waves, sum(run.total for run in runs)
        entry = waves.contexts[args.context] if waves else None
        ms = total * 1e3 / manifest.clock_hz
        best = min(best or ms, ms)
        print(
            f"| {chunk} | {len(manifest.groups)} | {made.program.manifest.cycles[args.context]:,} "
            f"| {manifest.cycles[args.context]:,} | {entry.interval if entry else 0:,} "
            f"| {entry.bound if entry else 0:,} | {' + '.join(map(str, runs))} = {total:,} | {ms:.2f} "
            f"| {sum(run.total for run in serial) * 1e3 / manifest.clock_hz:.1f} | {seconds:.1f} |",
            flush=True,
        )
    print(f"\nbest {best:.2f} ms (goal for llama-3.1-70b on lpx at 8192: at most {GOAL_MS:g} ms)")


if __name__ == "__main__":
    main()
