"""The term of every line, evaluated with the contract functions, is what the executor computes there."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside import Arrays, made_up
from evaluated import Evaluated
from models_named import of_model
from pairs import compiled_pair
from shapes import BIASED, HEADS, SMALL
from slow import slow_but
from subjects import BESIDE, EXPERTS, GEMMA, LATENT, LATENT_EXPERTS, SINKS, STATES, WINDOWS

import lpu.prove.follow.templates
import lpu.prove.follow.walk
from compiler.program.isa import Holds, Op
from compiler.program.program import Program
from lpu.link.link import link
from lpu.prove.follow.templates import Templates
from lpu.prove.known import Known
from lpu.prove.lines import Vector
from lpu.prove.models.record import ModelTerms
from lpu.prove.models.registry import reader_of
from lpu.prove.prove import prove
from lpu.run.execute import take_steps
from lpu.run.machine import Machine, prepare
from lpu.run.pools import Env, Pools
from models.config import TransformerConfig
from models.kv import empty_cache
from models.step import Step

NO_LINES = (Op.MM, Op.KVW, Op.GIVE)
CASES: dict[str, tuple[TransformerConfig, dict[str, Any], int]] = {
    "2d": (SMALL, {"tp": 4, "pp": 1, "layout": "2d", "contexts": (40,)}, 2),
    "biased": (BIASED, {"tp": 2, "pp": 2, "contexts": (40,), "batch": 2}, 2),
    "head norms": (HEADS, {"tp": 4, "pp": 1, "layout": "row", "contexts": (40,)}, 1),
    "experts": (EXPERTS, {"tp": 2, "pp": 1, "batch": 2, "contexts": (40,)}, 3),
    "each expert its slot": (EXPERTS, {"tp": 1, "pp": 1, "batch": 3, "contexts": (40,)}, 3),
    "latents": (LATENT, {"tp": 2, "pp": 1, "batch": 2, "contexts": (40,)}, 3),
    "latents and experts": (LATENT_EXPERTS, {"tp": 2, "pp": 2, "kv": "fp8", "contexts": (40,)}, 3),
    "windows": (WINDOWS, {"tp": 2, "pp": 1, "batch": 2, "contexts": (64,)}, 45),
    "caps and norms after": (GEMMA, {"tp": 4, "pp": 1, "layout": "row", "contexts": (60,)}, 30),
    "spans and sinks": (SINKS, {"tp": 2, "pp": 1, "kv": "fp8", "contexts": (40,)}, 21),
    "states": (STATES, {"tp": 2, "pp": 1, "batch": 2, "contexts": (24,)}, 5),
    "states beside attention": (BESIDE, {"tp": 2, "pp": 1, "batch": 2, "contexts": (24,)}, 5),
    "stripes": (SMALL, {"tp": 4, "pp": 1, "cp": 2, "kv": "fp8", "batch": 2, "contexts": (170,)}, 165),
}


class Lines(lpu.prove.follow.walk._Lines):  # pyright: ignore[reportPrivateUsage]
    """Remembers what was committed, in order of time."""

    def __init__(self, outside: Callable[[int], int]) -> None:
        super().__init__(outside)
        self.log: list[int] = []

    def __setitem__(self, key: int, line: int) -> None:
        self.log.append(line)
        super().__setitem__(key, line)

    def __missing__(self, key: int) -> int:
        found = self._outside(key)
        dict.__setitem__(self, key, found)
        return found


Written = dict[tuple[int, int], list[Any]]


def proved(program: Program, monkeypatch: pytest.MonkeyPatch) -> tuple[Known, ModelTerms, Written]:
    """The terms of a proof, and by call and row the f32 and fp16 lines that it writes."""
    logs: dict[int, tuple[Any, Any, list[int]]] = {}
    written: Written = {}
    held: list[Any] = []
    walk, bound_ = lpu.prove.follow.templates.walk, Templates._bound  # pyright: ignore[reportPrivateUsage]

    def spy_walk(known: Known, rows: Any, *others: Any) -> Any:
        walked = walk(known, rows, *others)
        lines: Any = walked.lines
        logs[id(walked)] = walked, rows, lines.log
        return walked

    def spy_bound(self: Any, template: Any, bound: dict[int, int], finds: Any) -> Any:
        _, rows, log = logs[id(template.walked)]
        held.append(self.known)
        things, terms, next_ = self.known.things, self.known.terms, iter(log)
        for event in rows.events:
            row = event >> 1
            if event & 1 or rows.op[row] in NO_LINES:
                continue
            lines = [things[next(next_)] for _ in range(rows.written[row])]
            written[finds.call, row] = [
                one._replace(value=terms.bind(one.value, bound, lambda *_: None))
                if isinstance(one, Vector)
                else one
                for one in lines
            ]
        return bound_(self, template, bound, finds)

    models: list[ModelTerms] = []
    read = reader_of

    def spy_reader(config: Any) -> Any:
        reader: Any = read(config)
        return lambda *given: models.append(reader(*given)) or models[-1]

    monkeypatch.setattr(lpu.prove.follow.walk, "_Lines", Lines)
    monkeypatch.setattr(lpu.prove.follow.templates, "walk", spy_walk)
    monkeypatch.setattr(Templates, "_bound", spy_bound)
    monkeypatch.setattr("lpu.prove.prove.reader_of", spy_reader)
    found = prove(program)
    assert found.ok, found.reason
    return held[0], models[0], written


def computed(machine: Machine, state: Any, tokens: Any, positions: Any) -> Pools:
    """All lines of one step, as the executor leaves them."""
    (packed,) = machine.entries.values()

    @partial(jax.jit, static_argnums=0)
    def run(layout: Any, tables: Any, env: Env) -> Pools:
        zeros = Pools(*(jnp.zeros(shape, dtype) for shape, dtype in layout.pool_shapes(layout.pools)))
        return take_steps(layout, tables, env, zeros)

    env = Env(machine.image, state, jnp.asarray(tokens), jnp.asarray(positions), jnp.int32(0))
    return run(packed.layout, packed.tables, env)


def stepped(step: Step, machine: Machine, weights: Arrays, count: int, vocab: int) -> tuple[Any, ...]:
    """Both caches after this many tokens of every sequence; tokens and positions of the next step."""
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    state, cache, reference = machine.start(), empty_cache(step.cache), jax.jit(step.fn)
    tokens = np.random.default_rng(3).integers(0, vocab, (count + 1, step.batch)).astype(np.int32)
    for position in range(count):
        at = np.full(step.batch, position, np.int32)
        state = machine.step(state, tokens[position], at).state
        cache = reference(params, jnp.asarray(tokens[position]), jnp.asarray(at), cache)[2]
    return state, cache, tokens[count], np.full(step.batch, count, np.int32)


@pytest.mark.parametrize("case", slow_but(["2d"], CASES))
def test_the_term_of_every_line_is_what_the_executor_computes(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, options, count = CASES[case]
    step, decode, _ = compiled_pair(config, 8, **options)
    program = of_model(decode, config, options.get("kv", "fp16"))
    known, model, written = proved(program, monkeypatch)
    weights = made_up(step)
    machine = prepare(program, weights)
    state, cache, tokens, positions = stepped(step, machine, weights, count, config.vocab)
    pools = computed(machine, state, tokens, positions)
    truth = Evaluated(known, model, weights, (jnp.asarray(tokens), jnp.asarray(positions), cache))
    ((context, packed),) = machine.entries.items()
    columns = program.expand(context)
    flow = link(program.manifest, program.loads(), columns)
    starts = np.cumsum([0, *(len(program.blocks[call.block].columns[context]) for call in program.calls)])
    looked = 0
    for (call, row), lines in written.items():
        at = starts[call] + row
        if columns.op[at] in (Op.SEND, Op.FORWARD):
            continue
        for i, line in enumerate(lines):
            if not isinstance(line, Vector):
                continue
            lanes = known.lanes.all[line.lanes]
            value = np.asarray(truth.value(line.value))
            want = np.where(lanes >= 0, value[:, np.maximum(lanes, 0)], value.dtype.type(0))
            pool: Any = pools.f16 if line.holds == Holds.F16 else pools.f32
            have = np.asarray(pool[packed.where[flow.result[at] + i]])
            assert have.dtype == want.dtype
            assert have.tobytes() == want.tobytes(), (case, call, row, i, known.show(line.value))
            looked += 1
    assert looked > len(columns) // 4
