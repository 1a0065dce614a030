"""512 tokens of a prompt through the prefill program of a 1.1B Llama, against as many single decode steps.

Both programs lie in one memory image on an LPX rack. Every bit of the logits of all positions, of the KV and
of the decode steps that follow is compared. `--layers 2` is a trial run, `--help` lists the options.
"""

import argparse
import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from flax import nnx
from measure import machine, peak_gb

from compiler.options import CompileOptions
from compiler.program.program import Program
from lpu import api
from lpu.decode.decoders import Tensors
from lpu.run.kv import KV
from lpu.run.machine import prepare
from models.catalog import catalog
from models.families.llama import Llama
from models.kv import KVFormat

COMPILE = "/jax/core/compile/"  # jaxpr tracing, lowering to MLIR, XLA itself


def main() -> None:
    args = arguments()
    print(machine())
    building: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: (
            building.append(duration_secs) if event.startswith(COMPILE) else None
        )
    )
    start = time.perf_counter()
    compiled = api.compile(
        chosen_model(args),
        rack=args.rack,
        options=CompileOptions(tp=args.tp),
        context=[args.context],
        prefill=args.tokens,
    )
    print(f"compile   {time.perf_counter() - start:.1f} s, both programs checked (measured)")
    program, long = compiled.program, compiled.prefill
    assert long is not None
    each, chunk = cycles(program, args.context), cycles(long, args.context)
    line("prefill", f"{chunk:,} cycles for {args.tokens} tokens", chunk, args.tokens, program)
    line("decode", f"{args.tokens} steps of {each:,} cycles", each * args.tokens, args.tokens, program)
    print(f"ratio     {each * args.tokens / chunk:.1f} x fewer cycles (modelled)")

    start = time.perf_counter()
    decoder = prepare(program, Tensors(compiled.model))
    prefiller = prepare(long, Tensors(compiled.model), decoder)
    print(f"load      {time.perf_counter() - start:.1f} s, one image for both (measured)")
    ids = (
        np.random.default_rng(0).integers(0, compiled.model.vocab, args.tokens + args.after).astype(np.int32)
    )
    prompt = np.arange(args.tokens, dtype=np.int32)

    building.clear()
    start = time.perf_counter()
    whole = prefiller.step(prefiller.start(), ids[prompt], prompt)
    logits = np.asarray(whole.logits)
    took, built = time.perf_counter() - start, sum(building)
    print(
        f"prefill   {took - built:.1f} s, and {built:.1f} s of XLA compile; "
        f"peak {peak_gb():.1f} GB (measured)"
    )

    building.clear()
    start = time.perf_counter()
    state, wrong = decoder.start(), 0
    for position in range(args.tokens):
        step = decoder.step(state, ids[[position]], np.array([position]))
        wrong += differing(step.logits, logits[[position]])
        state = step.state
    took, built = time.perf_counter() - start, sum(building)
    print(
        f"decode    {took - built:.1f} s for {args.tokens} steps, and {built:.1f} s of XLA compile (measured)"
    )
    verdict(f"{logits.size:,} logits", wrong)
    verdict(f"{sum(leaf.size for leaf in leaves(state)):,} KV values", cache_difference(state, whole.state))

    wrong, other = 0, whole.state
    for position in range(args.tokens, args.tokens + args.after):
        one = decoder.step(state, ids[[position]], np.array([position]))
        two = decoder.step(other, ids[[position]], np.array([position]))
        wrong += differing(one.logits, two.logits)
        state, other = one.state, two.state
    verdict(f"{args.after * logits.shape[1]:,} logits of the next {args.after} decode steps", wrong)


def chosen_model(args: argparse.Namespace) -> Any:
    """The catalog's model, or one with fewer layers."""
    if args.layers is None:
        return args.model
    config = replace(catalog(args.model), layers=args.layers)

    def shallow(*, batch: int, context: int, kv: KVFormat) -> nnx.Module:
        return Llama(config, batch=batch, context=context, kv=kv)

    return shallow


def cycles(program: Program, context: int) -> int:
    return program.manifest.cycles[context]


def line(name: str, text: str, total: int, tokens: int, program: Program) -> None:
    seconds = total / program.manifest.clock_hz
    print(f"{name:<9} {text} = {1e6 * seconds:,.0f} us, {tokens / seconds:,.0f} tokens/s (modelled)")


def leaves(state: KV) -> list[jax.Array]:
    return jax.tree.leaves(state)


def differing(one: Any, other: Any) -> int:
    """Values of other bits."""
    one, other = np.asarray(one), np.asarray(other)
    return int((one.view(f"u{one.itemsize}") != other.view(f"u{other.itemsize}")).sum())


def cache_difference(one: KV, other: KV) -> int:
    return sum(differing(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def verdict(what: str, wrong: int) -> None:
    print(f"bits      {what}: {'equal' if wrong == 0 else f'{wrong:,} DIFFER'}")
    if wrong:
        raise SystemExit(1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tinyllama-1.1b")
    parser.add_argument("--layers", type=int, default=None)
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--context", type=int, default=640)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--after", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
