"""What is no rule of an opcode: forms of rows and preloads, claims, hops, moves: each refused in words."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from beside import compiled
from handmade import BEST, CONTEXT, HANDMADE, SCALE, TOKEN, W, X, of_reader, read
from hopped import hopped
from models_named import of_model
from shapes import SMALL

from compiler.moves.handover import compile_ingest
from compiler.program.isa import STACK, TILE16, Op
from compiler.program.manifest import LogitsLine, Place
from compiler.program.program import LOADS, Loads, Program
from fabric.catalog import bridge_spec
from lpu.prove.held import HeldState, Regions
from lpu.prove.models.registry import READERS
from lpu.prove.move import prove_move
from lpu.prove.ops.registry import PROVED
from lpu.prove.prove import prove
from lpu.prove.rule import Proved
from models.catalog import catalog


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setitem(READERS, HANDMADE, read)
    return of_reader()


Change = Callable[[Program], Program]


def row(at: int, **fields: int) -> Change:
    """A row with other numbers. Rows 0 .. 5: EMBED, CAST, MM, MM, WB, ARGMAX of chip 0."""

    def change(program: Program) -> Program:
        (block,) = program.blocks
        new = {name: getattr(block.columns[CONTEXT], name).copy() for name in fields}
        for name, value in fields.items():
            new[name][at] = value
        columns = {CONTEXT: replace(block.columns[CONTEXT], **new)}
        return replace(program, blocks=(replace(block, columns=columns),))

    return change


def with_loads(program: Program, block: int, **columns: np.ndarray) -> Program:
    blocks = list(program.blocks)
    blocks[block] = replace(blocks[block], loads=replace(blocks[block].loads, **columns))
    return replace(program, blocks=tuple(blocks))


def load(at: int, **fields: int) -> Change:
    """A preloaded value with other numbers. 0 .. 6: a table, four tiles, two scales of chip 0."""

    def change(program: Program) -> Program:
        new = {name: getattr(program.blocks[0].loads, name).copy() for name in fields}
        for name, value in fields.items():
            new[name][at] = value
        return with_loads(program, 0, **new)

    return change


def more(program: Program) -> Program:
    """A scale of three words that nothing reads."""
    held = program.blocks[0].loads
    one = {"addr": W + 5000, "words": 3, "kind": SCALE, "tensor": 2, "lines": 1}
    added = Loads(**{name: np.append(getattr(held, name), one.get(name, 0)) for name in LOADS})
    return replace(program, blocks=(replace(program.blocks[0], loads=added),))


def none(program: Program) -> Program:
    held = program.blocks[0].loads
    empty = Loads(**{name: getattr(held, name)[:0] for name in LOADS})
    return replace(program, blocks=(replace(program.blocks[0], loads=empty),))


def claim(**fields: Any) -> Change:
    return lambda program: replace(program, manifest=replace(program.manifest, **fields))


def call(**fields: Any) -> Change:
    return lambda program: replace(program, calls=(replace(program.calls[0], **fields),))


def logits(at: int, **fields: int) -> Change:
    def change(program: Program) -> Program:
        held = list(program.manifest.logits)
        held[at] = held[at]._replace(**fields)
        return claim(logits=tuple(held))(program)

    return change


def exchanged(program: Program) -> Program:
    one, other, *rest = program.manifest.logits
    named = (one._replace(address=other.address), other._replace(address=one.address), *rest)
    return claim(logits=named)(program)


CASES: dict[str, Change] = {
    "has an operand in another space": row(4, dst=W),
    "has an operand where no line begins": row(1, dst=1 << 33),
    "counts more or fewer lines than it can": row(2, n=0),
    "reads no weights there": row(2, src2=X),
    "reads weights where no preloaded value begins": row(2, src2=W + 65),
    "reads weights beyond preloaded values": row(4, src2=W + 385),
    "reads a part of a preloaded value": load(6, words=2),
    "a preloaded value lies nowhere": load(0, addr=-1),
    "rows read weights, none are preloaded": none,
    "another size than its kind": more,
    "is of none of the 3 slots": load(1, tensor=7),
    "has 1 axes, its preloaded TILE 2": load(1, tensor=2),
    "reads tiles of other kinds or rows together": load(2, k0=320),
    "is of block 3 of 1": call(block=3),
    "weight_base of its chips": call(weight_base=(1200,)),
    "has no cycle for context": call(base={}),
    "an output is on chip 9 of": logits(0, chip=9),
    "an output is at word -1": logits(0, address=-1),
    "vocab is 319, the model's is 320": claim(vocab=319),
    "logits name 0 lines, not each of 4 once": claim(logits=()),
    "logits name 4 lines, not each of 4 once": logits(0, line=1),
    "manifest: no token": claim(token=None),
    "the token is where nothing is left": claim(token=Place(1, TOKEN)),
    "logits line 0 is not f32": logits(0, address=BEST),
    "logits line 0 holds other columns": exchanged,
    "the token is no choice of a logit": claim(token=Place(0, X)),
}


def test_the_schedule_is_proved(by_hand: Program) -> None:
    assert isinstance(by_hand.manifest.logits[0], LogitsLine)
    assert prove(by_hand).ok


@pytest.mark.parametrize("words", CASES)
def test_a_form_or_a_claim_is_refused_in_its_words(by_hand: Program, words: str) -> None:
    assert words in prove(CASES[words](by_hand)).reason


def test_a_row_needs_a_rule_that_makes_what_the_instruction_writes(
    by_hand: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROVED, Op.CAST, Proved(op=Op.CAST, rule=lambda known, row: ()))
    assert "makes 0 lines, the instruction writes 4" in prove(by_hand).reason
    monkeypatch.delitem(PROVED, Op.CAST)
    assert "CAST has no rule in the proof" in prove(by_hand).reason


def test_stacks_and_fp16_tiles_are_whole() -> None:
    config = replace(catalog("moe-tiny"), layers=1, vocab=100, hidden=400, max_context=24, experts=4)
    program = of_model(compiled(config, "pair", contexts=(24,), tp=2, pp=1)[1], config)
    assert prove(program).ok
    at = next(i for i, block in enumerate(program.blocks) if (block.loads.kind == STACK).any())
    held = program.blocks[at].loads

    def refused(kind: int, name: str, which: int, value: int) -> str:
        new = getattr(held, name).copy()
        new[np.flatnonzero(held.kind == kind)[which]] = value
        return prove(with_loads(program, at, **{name: new})).reason

    assert "words is not of whole experts" in refused(STACK, "lines", 0, 9)
    assert "reads fp16 tiles of other columns together" in refused(TILE16, "n0", 1, 80)


def test_hops_that_say_something_else_are_refused() -> None:
    program = of_model(hopped(SMALL, "quad", rows=2, tp=2)[1], SMALL)
    body: Any = program.manifest.body
    first, *others = body.hops

    def refused(**fields: Any) -> str:
        hops = (replace(first, **fields), *others)
        return prove(
            replace(program, manifest=replace(program.manifest, body=replace(body, hops=hops)))
        ).reason

    assert not refused()
    assert "hops name other calls" in refused(call=others[0].call)
    assert "is no part of the model" in refused(name="layers.9.ffn")
    assert "messages of 3 and 2 rows" in refused(inputs=replace(first.inputs, rows=3))
    assert "wires fp8 and f32" in refused(inputs=replace(first.inputs, wire="fp8"))
    assert "an answer of 80 lanes, the part has 160" in refused(outputs=replace(first.outputs, width=80))


def test_moves_that_say_something_else_are_refused(pair_program: Program) -> None:
    decode = of_model(pair_program, SMALL)
    ingest = compile_ingest(decode, 40, bridge_spec("spectrum-x"))
    regions = prove(decode).regions
    (context,) = ingest.manifest.contexts

    def refused(held: Regions = regions, **column: int) -> str:
        blocks = list(ingest.blocks)
        rows = blocks[0].columns[context]
        changed = {}
        for name, value in column.items():
            changed[name] = getattr(rows, name).copy()
            changed[name][0] = value
        blocks[0] = replace(blocks[0], columns={context: replace(rows, **changed)})
        return prove_move(replace(ingest, blocks=tuple(blocks)), held, "ingest").reason

    assert not refused()
    assert "row 0 moves no KV" in refused(op=Op.KVOUT)
    assert "is moved as line 1 of layer 0, holds line 0" in refused(src3=1)
    assert "holds no KV of layer 0 that is still to be moved" in refused(dst=ingest.manifest.rows << 20)
    state = HeldState(state=0, lanes="", first=0, lines=1, kept=3, cached=1)
    assert "0 of 1 states are moved" in refused({**regions, (0, 1 << 30): state})
