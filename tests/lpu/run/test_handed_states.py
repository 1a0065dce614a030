"""States handed over: they go through scheduled rows, and the LPUs decode on with the model's bits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside import bits, compiled, made_up
from slow import slow_but
from stateful import BESIDE, DELTA, JAMBA, MIXED, NEMOTRON3, SELECTIVE, SMALL

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.program.isa import Columns
from compiler.program.program import Program
from fabric.catalog import bridge_spec
from lpu.check.check import check, require
from lpu.check.memory_image import check_handover
from lpu.link.link import LinkError
from lpu.run.error import MachineError
from lpu.run.handed.handover import Handover
from lpu.run.machine import Machine, prepare
from models.configs.hybrid import HybridConfig
from models.kv import KVCache, empty_cache

BRIDGE = bridge_spec("spectrum-x")
CASES: dict[str, tuple[HybridConfig, str, dict[str, Any]]] = {
    "states only": (SMALL, "pair", {"tp": 2, "batch": 2}),
    "two groups of chips, both in one layer": (MIXED, "ring-8", {"tp": 2, "pp": 3, "batch": 2, "kv": "fp8"}),
    "beside attention": (BESIDE, "quad", {"tp": 4, "batch": 2}),
    "three chips, five rows": (SELECTIVE, "quad", {"tp": 3, "pp": 1, "batch": 5}),
    "with experts": (JAMBA, "quad", {"tp": 4, "pp": 1, "batch": 2}),
    "gated delta rule": (DELTA, "quad", {"tp": 4, "batch": 3}),
    "layers that keep nothing": (NEMOTRON3, "quad", {"tp": 2, "pp": 1, "batch": 2, "layout": "row"}),
}


def message(cache: KVCache, sequence: int, end: int) -> tuple[Any, Any, list[np.ndarray]]:
    """K and V of the first tokens, and the states."""
    parts = [[np.asarray(leaf)[sequence, :end] for leaf in part] for part in (cache.k, cache.v)]
    k, v = (np.stack(part) if part else np.zeros((0, end, 1, 1), np.float16) for part in parts)
    return k, v, [np.asarray(leaf)[sequence] for leaf in cache.state]


@pytest.mark.parametrize("case", slow_but(["states only"], list(CASES)))
def test_the_lpus_decode_on_with_the_bits_of_one_device(case: str) -> None:
    config, rack, options = CASES[case]
    step, program = compiled(config, rack, **options)
    weights, known, new = made_up(step), 6, 2
    tokens = np.random.default_rng(2).integers(0, config.vocab, (known + new, step.batch)).astype(np.int32)
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    run, cache, wanted = jax.jit(step.fn), empty_cache(step.cache), []
    machine = prepare(program, weights)
    ingest, egress = compile_ingest(program, known, BRIDGE), compile_egress(program, known, BRIDGE)
    for made in (ingest, egress):
        require(check(made, made.manifest.longest))
    require(check_handover(program, ingest, egress))
    over, state = Handover(machine, ingest, egress), machine.start()
    for at, now in enumerate(tokens):
        where = jnp.full(step.batch, at, jnp.int32)
        if at == known:
            for sequence in range(step.batch):
                k, v, states = message(cache, sequence, known)
                state = over.take(state, sequence, 0, k, v, states)
        logits, _, cache = run(params, jnp.asarray(now), where, cache)
        wanted.append(np.asarray(logits))
    for at in range(known, known + new):
        done = machine.step(state, tokens[at], np.full(step.batch, at, np.int32))
        state = done.state
        assert bits(done.logits) == bits(wanted[at])
    for sequence in range(step.batch):
        states = message(cache, sequence, known)[2]
        found = over.give_states(state, sequence, [(one.shape[0], one.shape[1]) for one in states])
        assert [one.tobytes() for one in found] == [one.tobytes() for one in states]


def test_a_slot_takes_the_words_of_its_busiest_lane_whatever_the_tokens() -> None:
    _, program = compiled(SMALL, "pair", tp=2, batch=2)
    few, many = (compile_ingest(program, tokens, BRIDGE) for tokens in (1, 80))
    assert few.manifest.cycles == many.manifest.cycles
    # 240 channels are 3 lines, B and C of 2 groups of 12 states 48 lanes, 1 line, of 3 inputs each; 12 states
    words = {0: 2 * 3 + 1 * 3 + 2 * 12, 1: 1 * 3 + 1 * 12}
    columns = few.expand(80)
    layers = 2
    assert sum(len(columns.take(columns.chip == chip)) for chip in words) == len(columns)
    slot = BRIDGE.slot_cycles(program.manifest.clock_hz)
    assert few.manifest.cycles[80] == layers * slot * max(words.values())


@pytest.fixture(scope="module")
def small() -> tuple[Machine, Program, Program]:
    step, decode = compiled(SMALL, "pair", tp=2, batch=2)
    return prepare(decode, made_up(step)), decode, compile_ingest(decode, 4, BRIDGE)


def changed(ingest: Program, rule: Callable[[Columns], Columns]) -> Program:
    """The program with the rows of its first block changed."""
    first, *others = ingest.blocks
    (context,) = first.columns
    return replace(ingest, blocks=(replace(first, columns={context: rule(first.columns[context])}), *others))


def with_(row: int, **values: int) -> Callable[[Columns], Columns]:
    """Columns with numbers of one row replaced."""

    def rule(columns: Columns) -> Columns:
        new = {name: getattr(columns, name).copy() for name in values}
        for name, value in values.items():
            new[name][row] = value
        return replace(columns, **new)

    return rule


FAULTS: dict[str, tuple[Callable[[Columns], Columns], str, str]] = {
    "a row dropped": (
        lambda columns: columns.take(np.arange(len(columns) - 1)),
        "no KVIN row moves the state",
        "no row moves what is kept",
    ),
    "a line of another state": (with_(0, src3=1), "moves line 1 of its", "the layer keeps"),
    "another place": (with_(0, dst=1 << 40 | 5), "no KVIN row moves the state", "is no KV or state"),
    "more lines": (with_(0, n=3), "moves line 1 of its layer's states, where line 2", "the layer keeps"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_move_each_state_once_is_refused(
    small: tuple[Machine, Program, Program], fault: str
) -> None:
    machine, decode, ingest = small
    rule, at_run, at_check = FAULTS[fault]
    wrong = changed(ingest, rule)
    with pytest.raises((LinkError, MachineError), match=at_run):
        Handover(machine, wrong)
    assert any(at_check in one.message for one in check_handover(decode, wrong).violations)


def test_states_of_another_model_are_refused(small: tuple[Machine, Program, Program]) -> None:
    machine, _, ingest = small
    over = Handover(machine, ingest)
    with pytest.raises(MachineError, match=r"1 states of 3 lines \(float32 \(12, 240\)\), the program moves"):
        over.take(machine.start(), 0, 0, None, None, [np.zeros((12, 240), np.float32)])
    with pytest.raises(MachineError, match=r"sequence 2 is outside 0\.\.1"):
        over.take(machine.start(), 2, 0, None, None, [])
