"""Hand-over: KV of a prefill elsewhere goes through scheduled rows, and the LPUs decode on with its bits."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL
from test_run import bits, compiled, made_up

from compiler.ingest import compile_egress, compile_ingest
from fabric.catalog import bridge_spec
from lpu.ingest import Handover
from lpu.run import prepare
from models.config import TransformerConfig
from models.kv import KVCache, empty_cache
from models.step import Step

BRIDGE = bridge_spec("spectrum-x")
EIGHT = replace(SMALL, name="eight-heads", heads=8, kv_heads=8)


def reference(step: Step, weights: Any, prompts: list[list[int]], new: int) -> tuple[Any, Any, KVCache]:
    """(logits of every position, tokens with `new` greedy ones, the cache) of the module on one device.

    A sequence that is done repeats its last step.
    """
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    run, cache = jax.jit(step.fn), empty_cache(step.cache)
    fed, logits = [list(prompt) for prompt in prompts], [list[np.ndarray]() for _ in prompts]
    for _ in range(max(map(len, prompts)) + new - 1):
        at = [min(len(out), len(own) - 1) for out, own in zip(logits, fed, strict=True)]
        tokens = [own[i] for own, i in zip(fed, at, strict=True)]
        found, token, cache = run(params, jnp.array(tokens, jnp.int32), jnp.array(at, jnp.int32), cache)
        for i, prompt in enumerate(prompts):
            if len(logits[i]) < len(prompt) + new - 1:
                logits[i].append(np.asarray(found[i]))
                if len(logits[i]) >= len(prompt) and len(fed[i]) < len(prompt) + new - 1:
                    fed[i].append(int(token[i]))
    return logits, fed, cache


def message(cache: KVCache, sequence: int, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """K and V of some tokens of all layers: [layers, tokens, heads, head_dim]."""
    k, v = (np.stack([np.asarray(leaf)[sequence, first:end] for leaf in part]) for part in (cache.k, cache.v))
    return k, v


CASES: dict[str, tuple[TransformerConfig, str, int, list[int], dict[str, Any]]] = {
    "one chip, fp16": (SMALL, "pair", 16, [21], {"tp": 1, "pp": 1}),
    "four chips of two groups, e4m3, three sequences": (
        SMALL,
        "quad",
        7,
        [5, 20, 14],
        {"tp": 2, "pp": 2, "kv": "fp8", "batch": 3},
    ),
    "four chips, two for each head's context": (
        SMALL,
        "quad",
        100,
        [170],
        {"tp": 4, "pp": 1, "cp": 2, "contexts": (100, 260)},
    ),
    "the same with e4m3 and three sequences": (
        SMALL,
        "quad",
        90,
        [85, 3, 161],
        {"tp": 4, "pp": 1, "cp": 2, "contexts": (240,), "kv": "fp8", "batch": 3},
    ),
    "eight chips with a head each": (EIGHT, "lpx-tray", 10, [25], {"tp": 8, "pp": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_lpus_decode_on_with_the_bits_of_one_device(case: str) -> None:
    """In chunks, the last one short; then what the LPUs appended themselves is given back, too."""
    config, rack, chunk, lengths, options = CASES[case]
    step, program = compiled(config, rack, **options)
    weights, random, new = made_up(step), np.random.default_rng(2), 4
    prompts = [random.integers(0, config.vocab, length).tolist() for length in lengths]
    logits, fed, cache = reference(step, weights, prompts, new)
    machine = prepare(program, weights)
    over = Handover(
        machine, compile_ingest(program, chunk, BRIDGE), compile_egress(program, chunk, BRIDGE, overlap=True)
    )
    state = machine.start()
    for sequence, length in enumerate(lengths):
        for first in range(0, length, chunk):
            end = min(first + chunk, length)
            state = over.take(state, sequence, first, *message(cache, sequence, first, end))
    for i in range(new - 1):
        at = np.array(lengths) + i
        done = machine.step(state, np.array([own[a] for own, a in zip(fed, at, strict=True)]), at)
        state = done.state
        for sequence, position in enumerate(at):
            assert bits(done.logits[sequence]) == bits(logits[sequence][position])
            if i < new - 2:
                assert int(done.token[sequence]) == fed[sequence][position + 1]
    for sequence, length in enumerate(lengths):
        for first in range(0, length + new - 1, chunk):
            end = min(first + chunk, length + new - 1)
            found = over.give(state, sequence, first, end - first)
            for ours, theirs in zip(found, message(cache, sequence, first, end), strict=True):
                assert ours.dtype == theirs.dtype
                assert ours.tobytes() == theirs.tobytes()


def test_a_short_chunk_writes_nothing_beyond_its_tokens() -> None:
    step, program = compiled(SMALL, "quad", tp=4, pp=1, cp=2, contexts=(400,))
    machine = prepare(program, made_up(step))
    over = Handover(machine, compile_ingest(program, 200, BRIDGE))
    ones = np.ones((2, 30, 2, 32), np.float16)
    state = over.take(machine.start(), 0, 70, ones, 2 * ones)  # 70..79 of stripe 0, 80..99 of stripe 1
    for store, value in zip((state.keys[0], state.values[0]), (1, 2), strict=True):
        held = np.asarray(store)[:, 0, :, 0]
        places = [np.flatnonzero(region).tolist() for region in held]
        assert sorted(places) == [list(range(20))] * 4 + [list(range(70, 80))] * 4
        assert set(held.ravel().tolist()) == {0.0, value}
