"""Programs that the compiler did not make and that compute the model all the same are proved."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from handmade import CONTEXT, HANDMADE, of_reader, read
from models_named import of_model
from shapes import SMALL

from compiler.program.isa import OPERANDS, Columns, Op
from compiler.program.program import Block, Program
from lpu.prove.models.registry import READERS, register
from lpu.prove.prove import prove


def rows_permuted(columns: Columns, random: np.random.Generator) -> Columns:
    return columns.take(random.permutation(len(columns)))


def later(columns: Columns, random: np.random.Generator) -> Columns:
    """A free cycle before every other one."""
    return replace(columns, t0=2 * columns.t0 + 1, t1=2 * columns.t1 + 1)


def elsewhere(columns: Columns, random: np.random.Generator) -> Columns:
    """Every transient line at another address."""
    moved = int(random.integers(1, 100))
    changed = {}
    for name in OPERANDS:
        values = getattr(columns, name)
        number = (columns.op == Op.MM) if name == "dst" else False
        number |= np.isin(columns.op, (Op.WB, Op.KVW, Op.ARGMAX)) if name == "src3" else False
        changed[name] = np.where(
            (values >= 0) & (values < 1 << 40) & ~np.asarray(number), values + moved, values
        )
    return replace(columns, **changed)


def operands_exchanged(columns: Columns, random: np.random.Generator) -> Columns:
    """a + b as b + a."""
    add = columns.op == Op.ADD
    one, other = columns.src, columns.src2
    return replace(columns, src=np.where(add, other, one), src2=np.where(add, one, other))


REWRITES = (rows_permuted, later, elsewhere, operands_exchanged)


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda one: one.__name__)
def test_a_rewrite_that_keeps_the_meaning_is_proved(
    rewrite: Callable[[Columns, np.random.Generator], Columns], piped_program: Program
) -> None:
    program = of_model(piped_program, SMALL)
    random = np.random.default_rng(1)
    by = int(np.random.default_rng(1).integers(1, 100)) if rewrite is elsewhere else 0

    def changed(block: Block) -> Block:
        state = np.random.default_rng(1) if rewrite is elsewhere else random
        return replace(block, columns={c: rewrite(rows, state) for c, rows in block.columns.items()})

    factor = 2 if rewrite is later else 1
    calls = tuple(
        replace(call, base={c: factor * base for c, base in call.base.items()}) for call in program.calls
    )
    manifest = program.manifest
    assert manifest.token is not None
    manifest = replace(
        manifest,
        logits=tuple(place._replace(address=place.address + by) for place in manifest.logits),
        token=manifest.token._replace(address=manifest.token.address + by),
    )
    made = replace(program, blocks=tuple(map(changed, program.blocks)), calls=calls, manifest=manifest)
    found = prove(made)
    assert found.ok, found.reason


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Program:
    """The hand schedule, whose model a reader from outside knows."""
    monkeypatch.setitem(READERS, HANDMADE, read)
    return of_reader()


def test_the_schedule_on_paper_computes_its_model(by_hand: Program) -> None:
    found = prove(by_hand)
    assert found.ok, found.reason
    assert (found.rows, found.regions) == (14, {})


@pytest.mark.parametrize(
    ("row", "name", "by", "words"),
    [
        (3, "src", -2, "meet other lanes"),
        (4, "src3", -1, "names a plane or an accumulator that does not exist"),
        (5, "src3", 1, "is not line 1"),
        (13, "n", -1, "the largest of 2 of 4 lines"),
        (12, "src", 1, "nothing has written yet"),
    ],
)
def test_a_change_of_one_number_of_the_schedule_on_paper_is_refused(
    by_hand: Program, row: int, name: str, by: int, words: str
) -> None:
    (block,) = by_hand.blocks
    values = getattr(block.columns[CONTEXT], name).copy()
    values[row] += by
    columns = {CONTEXT: replace(block.columns[CONTEXT], **{name: values})}
    found = prove(replace(by_hand, blocks=(replace(block, columns=columns),)))
    assert words in found.reason


def test_a_family_has_one_reader() -> None:
    assert register("llama", READERS["llama"]) is READERS["llama"]
    with pytest.raises(ValueError, match="has a reader"):
        register("llama", read)
