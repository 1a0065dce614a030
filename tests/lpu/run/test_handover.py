"""Hand-over: KV of a prefill elsewhere goes through scheduled rows, and the LPUs decode on with its bits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapes
from beside import bits, compiled, made_up
from handmade import change

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.program import manifest as manifests
from compiler.program.isa import Columns, Op
from compiler.program.program import Program
from fabric.catalog import bridge_spec
from lpu.link.link import LinkError
from lpu.run.error import MachineError
from lpu.run.handed.handover import Handover
from lpu.run.machine import Machine, prepare
from models.config import TransformerConfig
from models.kv import KVCache, empty_cache
from models.step import Step

BRIDGE = bridge_spec("spectrum-x")
SMALL = replace(shapes.SMALL, attention_block=80)
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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def small() -> tuple[Machine, Program, Program, Program]:
    """A machine with each head's context on two chips; its programs."""
    step, decode = compiled(SMALL, "quad", tp=4, pp=1, cp=2, contexts=(400,), batch=2)
    ingest, egress = compile_ingest(decode, 100, BRIDGE), compile_egress(decode, 100, BRIDGE)
    return prepare(decode, made_up(step)), decode, ingest, egress


def rows_of(made: Program, edit: Callable[[Columns], Columns]) -> Program:
    (block,) = made.blocks
    (context,) = made.manifest.contexts
    return replace(made, blocks=(replace(block, columns={context: edit(block.columns[context])}),))


def row(which: int, **fields: int) -> Callable[[Program], Program]:
    return lambda p: rows_of(p, lambda c: change(c, which, **fields))


def only(*which: int) -> Callable[[Program], Program]:
    return lambda p: rows_of(p, lambda c: c.take(np.array(which)))


def kernels(made: Program, **fields: Any) -> Program:
    known = tuple(replace(kernel, **fields) for kernel in made.manifest.kernels)
    return replace(made, manifest=replace(made.manifest, kernels=known))


def exchanged(made: Program, *names: str) -> Program:
    """Each column of `names` with its first two heads exchanged (lines 0, 1 and 2, 3)."""
    turn = np.array([2, 3, 0, 1])
    return rows_of(made, lambda c: replace(c, **{name: getattr(c, name)[turn] for name in names}))


def decoding(made: Program) -> Program:
    return replace(made, manifest=replace(made.manifest, body=manifests.Step()))


REFUSED: dict[str, tuple[Callable[[Program], Program], str]] = {
    "a row dropped": (only(0, 1, 3), "no KVIN row moves the KV region at word"),
    "a row to another word": (row(1, dst=1 << 40 | 7), "no KV region of the machine begins there"),
    "a row to another chip": (row(1, chip=0), r"no KV region|moves the same KV region"),
    "a row twice": (only(0, 1, 2, 3, 3), "moves the same KV region"),
    "a row of another opcode": (row(0, op=int(Op.KVW)), "has no place among the KVIN rows"),
    "a line of another stripe": (row(0, src3=1), "of stripe 1, its region holds stripe 0"),
    "a line twice": (row(0, src3=2), "8 KV regions take 6 lines"),
    "a line of no head": (row(0, src3=-2), "moves line -2"),
    "another format": (lambda p: kernels(p, kv="fp8"), "has kv fp8, the machine's regions fp16"),
    "another capacity": (lambda p: kernels(p, capacity=80), "has capacity 80, the machine's regions"),
    "other words": (lambda p: kernels(p, kv_words=2), "has kv_words 2"),
    "no stripes": (lambda p: kernels(p, stripes=1), "has stripes 1, the machine's regions 2"),
    "a layer left out": (lambda p: replace(p, calls=p.calls[:1]), "no KVIN row moves"),
    "the decode program": (
        lambda p: replace(p, manifest=replace(p.manifest, body=manifests.Step())),
        "is of kind 'step'",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_rows_that_are_not_of_the_machines_regions_are_refused(
    small: tuple[Machine, Program, Program, Program], fault: str
) -> None:
    edit, message = REFUSED[fault]
    with pytest.raises((LinkError, MachineError), match=message):
        Handover(small[0], edit(small[2]))


def layers_exchanged(made: Program) -> Program:
    one, other = made.calls
    calls = replace(one, kv_base=other.kv_base), replace(other, kv_base=one.kv_base)
    return replace(made, calls=calls)


MOVED: dict[str, Callable[[Program], Program]] = {
    "heads exchanged": lambda p: exchanged(p, "src3"),
    "layers exchanged": layers_exchanged,
    "too few tokens": row(1, n=79),
}


def filled(machine: Machine, *programs: Program) -> tuple[Handover, Any, Any]:
    """(the hand-over, a cache with 100 tokens from position 80 on in sequence 1, what was sent)."""
    random = np.random.default_rng(3)
    k, v = (random.standard_normal((2, 100, 2, 32)).astype(np.float16) for _ in "kv")
    over = Handover(machine, *programs)
    return over, over.take(machine.start(), 1, 80, k, v), [k, v]


@pytest.mark.parametrize("fault", MOVED)
def test_rows_that_move_something_else_change_the_bits(
    small: tuple[Machine, Program, Program, Program], fault: str
) -> None:
    machine, _, ingest, egress = small
    _, state, sent = filled(machine, ingest, egress)
    for programs in ((MOVED[fault](ingest), egress), (ingest, MOVED[fault](egress))):
        over, other, _ = filled(machine, *programs)
        found = over.give(other, 1, 80, 100)
        assert all(one.tobytes() != theirs.tobytes() for one, theirs in zip(found, sent, strict=True))
    over, state, sent = filled(machine, ingest, egress)
    for one, theirs in zip(over.give(state, 1, 80, 100), sent, strict=True):
        assert one.tobytes() == theirs.tobytes()


def test_another_sequence_keeps_what_it_had(small: tuple[Machine, Program, Program, Program]) -> None:
    machine, _, ingest, egress = small
    over, state, _ = filled(machine, ingest, egress)
    assert not any(part.any() for part in over.give(state, 0, 0, 100))
    assert not any(part[:, :80].any() for part in over.give(state, 1, 0, 100))


def test_a_message_that_does_not_fit_is_one_line(small: tuple[Machine, Program, Program, Program]) -> None:
    machine, decode, ingest, egress = small
    over, state = Handover(machine, ingest, egress), machine.start()
    zeros: Any = np.zeros((2, 100, 2, 32), np.float16)
    for arguments, message in (
        (
            (0, 0, zeros[:1], zeros),
            r"k is float16 \(1, 100, 2, 32\), the program takes float16 \(2, tok",
        ),
        ((0, 0, zeros, zeros[:, :5]), r"v is float16 \(2, 5, 2, 32\)"),
        ((0, 0, zeros.astype(np.uint8), zeros), "k is uint8"),
        ((2, 0, zeros, zeros), r"sequence 2 is outside 0\.\.1"),
        ((0, 301, zeros, zeros), r"tokens 301\.\.400 are outside 0\.\.399"),
        ((0, -1, zeros, zeros), r"tokens -1\.\.98 are outside"),
        ((0, 0, zeros[:, :0], zeros[:, :0]), "0 tokens, the program moves 1 to 100"),
        ((0, 0, np.zeros((2, 101, 2, 32), np.float16), np.zeros((2, 101, 2, 32), np.float16)), "101 tokens"),
    ):
        with pytest.raises(MachineError, match=message):
            over.take(state, *arguments)
    assert over.tokens == 100
    assert Handover(machine, ingest, compile_egress(decode, 30, BRIDGE)).tokens == 30
    for count in (0, 101):
        with pytest.raises(MachineError, match=f"egress: {count} tokens"):
            over.give(state, 0, 0, count)
    with pytest.raises(MachineError, match="has no egress program"):
        Handover(machine, ingest).give(state, 0, 0, 1)
    with pytest.raises(MachineError, match="is of kind 'ingest', not 'egress'"):
        Handover(machine, ingest, ingest)
    with pytest.raises(MachineError, match="is of kind 'step', not 'ingest'"):
        Handover(machine, decode)


def test_a_hand_over_is_no_step(small: tuple[Machine, Program, Program, Program]) -> None:
    for made in small[2:]:
        with pytest.raises((LinkError, MachineError)):
            prepare(made, {})
