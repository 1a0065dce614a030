"""Experts on a static machine: the bits of the model for any routing, refusals of any other program."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from beside import Arrays
from mixtures import MANY, MIXTURE, assert_bits, drawn, mixture
from models_named import of_model
from pairs import compiled_pair
from slow import slow_but

from compiler.program.instructions.experts import ExpertTileKernel, SlotsKernel
from compiler.program.isa import SCALE, STACK, TILE16, Columns, Op
from compiler.program.program import Block, Program
from lpu.check.check import check
from lpu.check.memory_image import pair
from lpu.prove.programs import prove_programs
from lpu.prove.prove import prove
from models.configs.experts import ExpertsConfig

Options = dict[str, Any]
SMALL = replace(MIXTURE, name="small", layers=2, hidden=128, ffn=64)
CASES: dict[str, tuple[ExpertsConfig, str, int, Options]] = {
    "one chip": (MIXTURE, "pair", 1, {"tp": 1, "pp": 1}),
    "two chips, three rows": (MIXTURE, "pair", 3, {"tp": 2, "pp": 1}),
    "rows of four chips": (MIXTURE, "quad", 2, {"tp": 4, "pp": 1, "layout": "row"}),
    "columns of four chips, two of them with KV": (SMALL, "quad", 1, {"tp": 4, "pp": 1}),
    "2d, five rows, each expert its own slot": (MIXTURE, "quad", 5, {"tp": 4, "pp": 1, "layout": "2d"}),
    "a hundred experts on eight chips": (MANY, "lpx-tray", 2, {"tp": 8, "pp": 1}),
}
QUICK = ("two chips, three rows",)


@pytest.mark.parametrize("case", slow_but(QUICK, CASES))
def test_bits_equal_the_model_and_the_program_is_proved(case: str) -> None:
    config, rack, batch, options = CASES[case]
    step, program = mixture(config, rack, batch, tuple(options.items()))
    assert check(program, 80).ok
    found = prove(program)
    assert found.ok, found.reason
    assert_bits(step, program, drawn(step))


def _same_for_all(weights: Arrays) -> None:
    """Every row prefers experts 6 and 7."""
    weights["layers.0.ffn.norm.gain"][:] = 0
    weights["layers.0.ffn.norm.gain"][0] = 1
    weights["layers.0.ffn.router.halves"][:] = 0
    weights["layers.0.ffn.router.halves"][0, 6:] = 1000


def _all_equal(weights: Arrays) -> None:
    weights["layers.0.ffn.router.halves"][:] = 0


def _in_pairs(weights: Arrays) -> None:
    halves = weights["layers.0.ffn.router.halves"]
    halves[:, 1::2] = halves[:, ::2]
    weights["layers.0.ffn.router.exponent"][:] = -12


def _extreme(weights: Arrays) -> None:
    """One expert takes all of the weight; the other that is chosen has weight 0."""
    weights["layers.0.ffn.router.exponent"][:] = 4


def _never(weights: Arrays) -> None:
    """No row ever chooses the first four experts."""
    weights["layers.0.ffn.router.halves"][:, :4] = 0
    weights["layers.0.ffn.router.exponent"][4:] = -2


ADVERSARIES: dict[str, Callable[[Arrays], None]] = {
    "all rows take the same experts": _same_for_all,
    "all logits are equal": _all_equal,
    "logits are equal in pairs": _in_pairs,
    "a chosen expert has weight 0": _extreme,
    "half of the experts are never chosen": _never,
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_any_routing_has_the_models_bits(name: str) -> None:
    step, program = mixture(MIXTURE, "pair", 3, (("tp", 2), ("pp", 1)))
    weights = {path: np.array(value) for path, value in drawn(step, 5).items()}
    ADVERSARIES[name](weights)
    assert_bits(step, program, weights)


@pytest.mark.parametrize("tp", [1, 2])
def test_a_chunk_that_can_choose_more_experts_finds_weights_and_kv_where_a_step_does(tp: int) -> None:
    """Its values have other numbers than those of the step, and come in the same order."""
    config = replace(SMALL, experts=4)
    _, decode, prefill = compiled_pair(config, 4, rack="pair", tp=tp, pp=1)
    assert (decode.loads().tag != prefill.loads().tag).any()
    assert pair(decode, prefill).ok
    found = prove_programs(of_model(decode, config), of_model(prefill, config))
    assert found.ok, found.reason
    loads, exchanged = prefill.blocks[-1].loads, {}
    for name in ("tag", "addr"):
        exchanged[name] = getattr(loads, name).copy()
        exchanged[name][:2] = exchanged[name][1::-1]
        blocks = (*prefill.blocks[:-1], replace(prefill.blocks[-1], loads=replace(loads, **exchanged)))
        assert not pair(decode, replace(prefill, blocks=blocks)).ok


def test_a_program_knows_nothing_of_its_weights_and_of_its_tokens() -> None:
    """So its cycles depend on neither: they are in the program, which took all routings above."""
    _, program = mixture(MIXTURE, "pair", 3, (("tp", 2), ("pp", 1)))
    (cycles,) = program.manifest.cycles.values()
    assert cycles == max(int(program.expand(80).t1.max()), 1)


def _ffn(program: Program) -> int:
    return next(
        i
        for i, block in enumerate(program.blocks)
        if any((c.op == Op.XMM).any() for c in block.columns.values())
    )


def _with(program: Program, **changes: Any) -> Program:
    blocks, at = list(program.blocks), _ffn(program)
    blocks[at] = replace(blocks[at], **changes)
    return replace(program, blocks=tuple(blocks))


def _column(name: str, op: Op, change: Callable[[Columns, int], int], which: int = 0) -> Any:
    def mutate(program: Program) -> Program:
        columns = program.blocks[_ffn(program)].columns[80]
        values, row = getattr(columns, name).copy(), int(np.flatnonzero(columns.op == op)[which])
        values[row] = change(columns, row)
        return _with(program, columns={80: replace(columns, **{name: values})})

    return mutate


def _slot_twice(program: Program) -> Program:
    """In one sum a slot is taken a second time, in the place of another."""
    columns = program.blocks[_ffn(program)].columns[80]
    rows = np.flatnonzero(columns.op == Op.XMM)
    down = rows[columns.dst_tag[rows] == columns.dst_tag[rows[-1]]]
    down = down[columns.chip[down] == columns.chip[rows[-1]]]
    changed = {name: getattr(columns, name).copy() for name in ("src", "src_tag", "src2", "src2_tag")}
    for values in changed.values():
        values[down[-1]] = values[down[0]]
    return _with(program, columns={80: replace(columns, **changed)})


def _kernels(kind: type, **changes: int) -> Any:
    def mutate(program: Program) -> Program:
        kernels = [replace(k, **changes) if isinstance(k, kind) else k for k in program.manifest.kernels]
        return replace(program, manifest=replace(program.manifest, kernels=tuple(kernels)))

    return mutate


def _loads(kind: int, name: str, change: Callable[[Block, int], int]) -> Any:
    def mutate(program: Program) -> Program:
        block = program.blocks[_ffn(program)]
        values = getattr(block.loads, name).copy()
        at = int(np.flatnonzero(block.loads.kind == kind)[0])
        values[at] = change(block, at)
        return _with(program, loads=replace(block.loads, **{name: values}))

    return mutate


def _other_map(program: Program) -> Program:
    """Two experts' worth of rows exchanged: the row map of one stack is rolled."""
    block = program.blocks[_ffn(program)]
    stacks = np.flatnonzero(block.loads.kind == STACK)
    row_map = block.slots[int(block.loads.tensor[stacks[0]])][0]
    maps = list(block.maps)
    maps[row_map] = np.concatenate([maps[row_map][1:160], maps[row_map][:1], maps[row_map][160:]])
    return _with(program, maps=tuple(maps))


MUTATIONS: dict[str, Callable[[Program], Program]] = {
    "a stack read 80 words further": _column("src3", Op.XMM, lambda c, i: int(c.src3[i]) + 80),
    "a stack of fewer experts": _kernels(ExpertTileKernel, experts=7),
    "an expert beyond the stack": _kernels(ExpertTileKernel, expert=8),
    "a fixed expert where rows choose": _kernels(ExpertTileKernel, expert=0),
    "the slots read a cycle before they are there": _column("t1", Op.SLOTS, lambda c, i: int(c.t1[i]) + 1),
    "a slot too few": _kernels(SlotsKernel, slots=5),
    "slots of another number of chosen experts": _kernels(SlotsKernel, chosen=1),
    "a slot twice and another never": _slot_twice,
    "a slot's weights on another slot": _column("src2_tag", Op.WGLU, lambda c, i: int(c.src2_tag[i]) + 1),
    "slots made from the second on": _column("src3", Op.SLOTS, lambda c, i: int(c.src3[i]) + 1),
    "a router with other weights on one chip": _loads(TILE16, "k0", lambda b, i: 320),
    "scales of another matrix": _loads(
        SCALE, "tensor", lambda b, i: (int(b.loads.tensor[i]) + 1) % len(b.slots)
    ),
    "a stack of another matrix": _loads(STACK, "tensor", lambda b, i: int(b.loads.tensor[i]) + 1),
    "rows of an expert rolled": _other_map,
    "a plane held a cycle less": _column("t1", Op.XMM, lambda c, i: int(c.t1[i]) - 1),
    "a router's product held a cycle less": _column("t1", Op.MM16, lambda c, i: int(c.t1[i]) - 1),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught_by_check_or_proof(name: str) -> None:
    _, program = mixture(MIXTURE, "pair", 3, (("tp", 2), ("pp", 1)))
    mutated = MUTATIONS[name](program)
    assert mutated is not program
    report = check(mutated, 80)
    assert not report.ok or not prove(mutated).ok


STRUCTURE = ("a slot too few", "a slot twice and another never", "slots of another number of chosen experts")


@pytest.mark.parametrize("name", STRUCTURE)
def test_slots_that_do_not_suffice_are_refused_by_both(name: str) -> None:
    _, program = mixture(MIXTURE, "pair", 3, (("tp", 2), ("pp", 1)))
    mutated = MUTATIONS[name](program)
    assert not check(mutated, 80).ok
    assert not prove(mutated).ok
