"""Layers with a state of fixed size: the bits of the model itself, laid out, cut or restarted anyhow."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside import assert_same, bits, compiled, made_up
from pairs import compiled_pair
from slow import slow_but
from stateful import BESIDE, DELTA, GATED, JAMBA, LATENT, MIXED, NEMOTRON, NEMOTRON3, SELECTIVE, SMALL

from compiler.program.isa import STACK
from lpu.check.check import check, check_columns, require
from lpu.check.memory_image import pair
from lpu.link.error import LinkError
from lpu.link.link import link
from lpu.run.machine import Machine, prepare
from models.configs.hybrid import HybridConfig
from models.kv import empty_cache
from models.sources.seeded import seeded
from models.sources.weights import weight_shapes
from models.step import family_step

WAYS: dict[str, tuple[HybridConfig, str, dict[str, Any]]] = {
    "one chip": (SMALL, "pair", {"tp": 1}),
    "five rows on four chips": (SMALL, "quad", {"tp": 4, "batch": 5}),
    "row layout": (SMALL, "quad", {"tp": 4, "layout": "row"}),
    "both directions, three groups of chips": (MIXED, "ring-8", {"tp": 2, "pp": 3, "layout": "2d"}),
    "attention and a mixer beside each other, nothing turned": (BESIDE, "quad", {"tp": 4, "batch": 2}),
    "time steps and decays of each channel": (SELECTIVE, "quad", {"tp": 3, "pp": 1, "batch": 3}),
    "norms of B and C that cross lines, experts": (JAMBA, "quad", {"tp": 4, "pp": 1, "batch": 5}),
    "the same on one chip": (JAMBA, "pair", {"tp": 1, "pp": 1, "batch": 2}),
    "gated delta rule on four chips": (DELTA, "quad", {"tp": 4, "batch": 5}),
    "gated delta rule on one chip": (DELTA, "pair", {"tp": 1, "batch": 1, "pp": 1}),
    "a shared expert with a gate, behind a line of experts": (GATED, "quad", {"tp": 4, "batch": 5}),
    "norms by group, squared FFNs": (NEMOTRON, "quad", {"tp": 4, "batch": 2}),
    "experts without a gate": (NEMOTRON3, "quad", {"tp": 4, "batch": 3}),
    "the same, three chips": (NEMOTRON3, "quad", {"tp": 3, "pp": 1, "layout": "row"}),
    "experts of latents, an FFN beside them": (LATENT, "quad", {"tp": 4, "batch": 2}),
    "with attention and two buckets": (MIXED, "quad", {"tp": 2, "contexts": (8, 24), "batch": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_schedule_has_the_bits_of_the_model(way: str) -> None:
    config, rack, options = WAYS[way]
    step, program = compiled(config, rack, **options)
    for context in program.manifest.contexts:
        require(check(program, context))
    assert_same(step, program, [[position] * step.batch for position in (0, 1, 2, 9, 10)])


def test_latents_in_thin_slices_are_multiplied_in_whole_lines() -> None:
    """Three chips have a line each of 180 latents: the experts of a chip take one tile of them, not two."""
    _, program = compiled(LATENT, "quad", tp=4)
    loads = program.loads()
    assert np.bincount(loads.chip[loads.kind == STACK]).tolist() == [2] * 4  # up and down


def stepped(machine: Machine, tokens: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, Any]:
    """Logits [positions, batch, vocab] of steps one after another, and what is kept."""
    state, out = machine.start(), []
    for now, where in zip(tokens, at, strict=True):
        done = machine.step(state, now, where)
        state = done.state
        out.append(np.asarray(done.logits))
    return np.stack(out), state


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL, SELECTIVE, DELTA], ids=lambda config: config.name)
def test_a_batch_whose_rows_restart_at_different_steps_has_the_bits_of_each_alone(
    config: HybridConfig,
) -> None:
    step, program = compiled(config, "pair", batch=3, tp=2)
    machine = prepare(program, made_up(step))
    tokens = np.random.default_rng(3).integers(0, config.vocab, (7, 3)).astype(np.int32)
    begins = [0, 2, 5]
    at = np.array([[t - begin if t >= begin else t for begin in begins] for t in range(7)], np.int32)
    logits, _ = stepped(machine, tokens, at)
    for row, begin in enumerate(begins):
        alone = np.repeat(tokens[begin:, row : row + 1], 3, axis=1)
        own = np.repeat(at[begin:, row : row + 1], 3, axis=1)
        assert bits(stepped(machine, alone, own)[0][:, row]) == bits(logits[begin:, row])


@pytest.mark.parametrize(
    "config", slow_but([SMALL], [SMALL, MIXED, SELECTIVE, JAMBA, DELTA]), ids=lambda config: config.name
)
def test_chunks_leave_the_bytes_that_single_steps_leave(config: HybridConfig) -> None:
    step, decode, long = compiled_pair(config, 5, batch=2, tp=2)
    for program in (decode, long):
        require(check(program, 80))
    require(pair(decode, long))
    weights = made_up(step)
    single = prepare(decode, weights)
    chunks = prepare(long, weights, single)
    tokens = np.random.default_rng(5).integers(0, config.vocab, (20, 2)).astype(np.int32)
    at = np.repeat(np.arange(20, dtype=np.int32)[:, None], 2, axis=1)
    logits, kept = stepped(single, tokens, at)
    filled = single.start()
    for sequence in (1, 0):
        for first in range(0, 20, 5):
            done = chunks.step(
                filled, tokens[first : first + 5, sequence], at[first : first + 5, 0], sequence
            )
            filled = done.state
            assert bits(done.logits) == bits(logits[first : first + 5, sequence])
    for ours, theirs in zip(jax.tree.leaves(filled), jax.tree.leaves(kept), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_a_state_is_renewed_once_a_step_and_by_its_own_line() -> None:
    _, program = compiled(SMALL, "pair", tp=2)
    columns, loads = program.expand(80), program.loads()
    ssm = np.flatnonzero(columns.op == 50)
    assert check_columns(program.manifest, loads, columns, program.manifest.cycles[80]).ok

    def changed(**values: tuple[int, int]) -> Any:
        """The columns with numbers of one SSM row replaced."""
        new = {name: getattr(columns, name).copy() for name in values}
        for name, (row, value) in values.items():
            new[name][row] = value
        return replace(columns, **new)

    first, second = (int(row) for row in ssm[:2])
    assert columns.chip[first] == columns.chip[second]
    again = changed(src3=(second, int(columns.src3[first])))
    report = check_columns(program.manifest, loads, again)
    assert any("renews the state at word" in one.message for one in report.violations)
    with pytest.raises(LinkError, match="renews a state that another row renews"):
        link(program.manifest, loads, again)
    outside = changed(src3=(first, 1 << 30))
    assert any(
        "its kv region" in one.message for one in check_columns(program.manifest, loads, outside).violations
    )
    other = changed(n=(first, int(columns.n[second])))
    report = check_columns(program.manifest, loads, other)
    assert any("its time steps are of" in one.message for one in report.violations)


ONE = replace(SMALL, layers=1, pattern=("M",), channels=80, ssm_heads=5, groups=1, states=4, hidden=80)
ONE_SELECTIVE = replace(ONE, name="selective", ssm_heads=80, rank=12, mixer_norm="none")
ONE_DELTA = replace(ONE, name="delta", rule="delta")


@pytest.mark.slow
@pytest.mark.parametrize("config", [ONE, ONE_SELECTIVE, ONE_DELTA], ids=lambda config: config.name)
def test_a_long_run_of_chunks_does_not_drift_from_the_model(config: HybridConfig) -> None:
    """4,096 tokens: the state after 16 chunks of 256 is that of 4,096 single tokens of the model itself."""
    single, many = (
        family_step(config, batch=1, context=4096),
        family_step(config, batch=1, context=4096, chunk=256),
    )
    held = seeded(weight_shapes(single), 1)
    params = {name: jnp.asarray(held[name]) for name in held.shapes}
    tokens = np.random.default_rng(7).integers(0, config.vocab, 4096).astype(np.int32)

    @jax.jit
    def by_token(cache: Any, start: Any) -> Any:
        def one(cache: Any, now: Any) -> Any:
            token, at = now
            return single.fn(params, token[None], at[None], cache)[2], None

        part = jax.lax.dynamic_slice_in_dim(jnp.asarray(tokens), start, 256)
        return jax.lax.scan(one, cache, (part, start + jnp.arange(256, dtype=jnp.int32)))[0]

    whole, step = empty_cache(many.cache), jax.jit(many.fn)
    cache = empty_cache(single.cache)
    for first in range(0, 4096, 256):
        at = jnp.arange(first, first + 256, dtype=jnp.int32)
        whole = step(params, jnp.asarray(tokens[first : first + 256]), at, whole)[2]
        cache = by_token(cache, jnp.int32(first))
    for ours, theirs in zip(whole.state, cache.state, strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
