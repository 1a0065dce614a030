"""Experts whose slices leave no room: whole on shares of the ranks, a table of slots for each share."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from beside import compiled
from mixtures import assert_bits, drawn
from models_named import of_model
from slow import slow_but
from test_latent_experts import MANY, TINY

import compiler.lower.ops.experts as experts
from compiler.errors import CapacityError
from compiler.lower.context import Lowering
from compiler.lower.ops.chains import turns
from compiler.program.instructions.experts import ExpertTileKernel, SlotsKernel, slots_needed
from compiler.program.isa import STACK, Op
from compiler.program.program import Program
from fabric.catalog import chip_spec
from fabric.rack import Rack, load_rack
from lpu import api
from lpu.check.check import check
from lpu.check.follow.experts import wrong_slots
from lpu.prove.prove import prove
from models.configs.latent import LatentExpertsConfig

WHOLE = replace(MANY, shared=0, chosen=2)
CASES: dict[str, tuple[LatentExpertsConfig, str, int, int, int, int]] = {
    # model, rack, words of a chip, rows, chips, tables that come of it
    "two shares of four chips": (MANY, "lpx-tray", 20_000, 1, 8, 3),
    "four shares of two chips, two rows": (MANY, "lpx-tray", 18_000, 2, 8, 5),
    "two shares of two chips": (MANY, "quad", 20_000, 1, 4, 3),
    "no shared expert": (WHOLE, "quad", 20_000, 3, 4, 2),
}


def small(rack: str, words: int) -> Rack:
    """A rack whose chips have this many words."""
    return load_rack(rack, chip_spec("lp30").with_numbers(sram_bytes=320 * words))


@cache
def shared_out(name: str) -> Any:
    """(step, program, tables) of a case, with its numbers in the manifest."""
    config, rack, words, batch, tp, tables = CASES[name]
    step, program = compiled(config, small(rack, words), contexts=(80,), batch=batch, pp=1, tp=tp)
    return step, of_model(program, config), tables


QUICK = ("two shares of two chips",)


@pytest.mark.parametrize("name", slow_but(QUICK, CASES))
def test_programs_of_shares_are_checked_and_proved(name: str) -> None:
    _, program, tables = shared_out(name)
    assert len([k for k in program.manifest.kernels if isinstance(k, SlotsKernel)]) == tables
    assert check(program, 80).ok
    found = prove(program)
    assert found.ok, found.reason


@pytest.mark.parametrize("name", slow_but((), CASES))
def test_bits_equal_the_model(name: str) -> None:
    step, program, _ = shared_out(name)
    assert_bits(step, program, drawn(step))


def test_with_room_all_experts_are_sliced_over_the_group() -> None:
    _, program = compiled(MANY, "quad", contexts=(80,), pp=1, tp=4)
    (kernel,) = [k for k in program.manifest.kernels if isinstance(k, SlotsKernel)]
    assert kernel == SlotsKernel(experts=81, chosen=4, slots=4)


def test_what_no_share_holds_is_refused_with_both_numbers() -> None:
    with pytest.raises(CapacityError, match=r"needs .* MB per chip, a chip has 3\.2"):
        compiled(MANY, small("quad", 10_000), contexts=(80,), pp=1, tp=4)


@pytest.mark.parametrize(
    ("first", "some", "rows", "slots"),
    [(0, 0, 1, 4), (0, 40, 1, 3), (0, 40, 2, 6), (40, 40, 20, 40), (80, 1, 1, 1), (60, 21, 2, 7)],
)
def test_slots_suffice_for_any_choice(first: int, some: int, rows: int, slots: int) -> None:
    """Three routed experts of 80 for each row, and the last, which every row takes."""
    kernel = SlotsKernel(experts=81, chosen=4, slots=slots, first=first, some=some, shared=1 if some else 0)
    assert slots_needed(kernel, rows) == slots
    assert not wrong_slots(kernel, rows)
    assert "can choose" in wrong_slots(replace(kernel, slots=slots - 1), rows)


def _ffn(program: Program) -> int:
    return next(
        i for i, b in enumerate(program.blocks) if any((c.op == Op.XMM).any() for c in b.columns.values())
    )


def _with(program: Program, **changes: Any) -> Program:
    blocks, at = list(program.blocks), _ffn(program)
    blocks[at] = replace(blocks[at], **changes)
    return replace(program, blocks=tuple(blocks))


def _kernels(kind: type, which: int, **changes: int) -> Callable[[Program], Program]:
    def mutate(program: Program) -> Program:
        mine = [i for i, k in enumerate(program.manifest.kernels) if isinstance(k, kind)][which]
        kernels = list(program.manifest.kernels)
        kernels[mine] = replace(kernels[mine], **changes)  # pyright: ignore[reportArgumentType]
        return replace(program, manifest=replace(program.manifest, kernels=tuple(kernels)))

    return mutate


def _tables(program: Program) -> dict[int, list[int]]:
    """By table, in order of its slots' value, the products that ask it."""
    columns = program.blocks[_ffn(program)].columns[80]
    asks = np.flatnonzero((columns.op == Op.XMM) & (columns.src2_tag >= 0))
    out: dict[int, list[int]] = {}
    for row in asks.tolist():
        out.setdefault(int(columns.src2_tag[row] >> 40), []).append(row)
    return dict(sorted(out.items()))


def _exchanged(*names: str) -> Callable[[Program], Program]:
    """The down products of one table's first slot with what another's have in some columns."""

    def mutate(program: Program) -> Program:
        columns = program.blocks[_ffn(program)].columns[80]
        one, other = (rows[-1] for rows in list(_tables(program).values())[:2])
        changed = {name: getattr(columns, name).copy() for name in names}
        for values in changed.values():
            values[one], values[other] = values[other], values[one]
        return _with(program, columns={80: replace(columns, **changed)})

    return mutate


def _twice(program: Program) -> Program:
    """A slot of one table in the place of another table's."""
    columns = program.blocks[_ffn(program)].columns[80]
    one, other = (rows[-1] for rows in list(_tables(program).values())[:2])
    names = ("src", "src_tag", "src2", "src2_tag", "src3", "src3_tag", "aux")
    changed = {name: getattr(columns, name).copy() for name in names}
    for values in changed.values():
        values[one] = values[other]
    return _with(program, columns={80: replace(columns, **changed)})


def _other_experts(program: Program) -> Program:
    """The rows of a stack's first expert are those of the next expert."""
    block = program.blocks[_ffn(program)]
    stacks = np.flatnonzero(block.loads.kind == STACK)
    number = block.slots[int(block.loads.tensor[stacks[-1]])][0]
    maps = list(block.maps)
    maps[number] = np.where(maps[number] >= 0, maps[number] + 64, -1)
    return _with(program, maps=tuple(maps))


def _another_stack(program: Program) -> Program:
    """A stack of one share is that of another share."""
    block = program.blocks[_ffn(program)]
    stacks = np.flatnonzero((block.loads.kind == STACK) & (block.loads.words > 80 * 40))
    tensor = block.loads.tensor.copy()
    few = np.unique(tensor[stacks])
    tensor[tensor == few[0]] = few[1]
    return _with(program, loads=replace(block.loads, tensor=tensor))


MUTATIONS: dict[str, Callable[[Program], Program]] = {
    "a table from the next expert on": _kernels(SlotsKernel, 1, first=1),
    "two tables of the same experts": _kernels(SlotsKernel, 2, first=0),
    "a table of an expert less": _kernels(SlotsKernel, 1, some=39),
    "a table of all experts": _kernels(SlotsKernel, 1, first=0, some=0),
    "a table beyond the last expert": _kernels(SlotsKernel, 2, first=50),
    "a slot too few": _kernels(SlotsKernel, 1, slots=2),
    "the shared expert among the chosen ones of a share": _kernels(SlotsKernel, 1, shared=2),
    "a stack of an expert less": _kernels(ExpertTileKernel, -1, experts=39),
    "slots of two tables exchanged": _exchanged("src2", "src2_tag"),
    "activations of two tables exchanged": _exchanged("src", "src_tag"),
    "stacks of two tables exchanged": _exchanged("src3", "src3_tag"),
    "a slot of one table twice, and of another never": _twice,
    "rows of the next expert": _other_experts,
    "the stack of another share": _another_stack,
}
BY_CHECK = (
    "a table from the next expert on", "two tables of the same experts", "a table of an expert less",
    "a table beyond the last expert", "a slot too few", "slots of two tables exchanged",
    "activations of two tables exchanged", "a slot of one table twice, and of another never",
)  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_not_proved(name: str) -> None:
    _, program, _ = shared_out(QUICK[0])
    assert not prove(MUTATIONS[name](program)).ok


@pytest.mark.parametrize("name", BY_CHECK)
def test_the_checker_finds_what_needs_no_model(name: str) -> None:
    _, program, _ = shared_out(QUICK[0])
    assert not check(MUTATIONS[name](program), 80).ok


def test_slots_of_odd_numbers_of_tiles_fill_the_planes_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lines of gate and up on each of four chips: the fourth plane takes the next slot's first."""
    model = replace(TINY, layers=1, dense=0, expert_ffn=480)
    program = compiled(model, "quad", contexts=(80,), pp=1, tp=4)[1]
    assert check(program, 80).ok

    def in_turn(low: Lowering, rank: np.ndarray, *_: np.ndarray) -> np.ndarray:
        return turns(low, rank)

    monkeypatch.setattr(experts, "even_turns", in_turn)
    first = compiled(model, "quad", contexts=(80,), pp=1, tp=4)[1]
    assert program.manifest.cycles[80] < first.manifest.cycles[80]


@pytest.mark.parametrize("tp", [pytest.param(8, marks=pytest.mark.slow)])
def test_attention_of_experts_runs_on_neighbours(tp: int) -> None:
    """On a ring two chips are neighbours of each other: latents are on these, experts on all eight."""
    step, program = compiled(TINY, "ring-8", contexts=(80,), pp=1, tp=tp)
    program = of_model(program, TINY)
    calls = {call.name: call for call in program.calls}
    appends = program.expand_call(calls["layers.1.attention"], 80)
    assert sorted(set(appends.chip[appends.op == Op.KVW].tolist())) == [0, 1]
    assert check(program, 80).ok
    found = prove(program)
    assert found.ok, found.reason
    assert_bits(step, program, drawn(step))


@pytest.mark.slow
def test_where_whole_tiles_leave_no_room_two_experts_share_them_before_ranks_do() -> None:
    """A layer of gpt-oss-120b is 484 MB on each chip of a tray, with tiles of two experts; else 526."""
    made = api.compile("gpt-oss-120b", rack="lpx-x2", context=[8192], tp=8, kv="fp8", check=False)
    assert made.program.manifest.chips == 512
