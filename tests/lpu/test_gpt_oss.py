"""Gpt-oss on a static machine: the bits of the model with its biases; refusals of any other program."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from beside import Arrays
from mixtures import OSS, assert_bits, drawn, mixture
from slow import slow_but

from compiler.program.instructions.experts import ExpertTileKernel, RankKernel, WeightedGluKernel
from compiler.program.instructions.vector import CastKernel
from compiler.program.isa import GAIN, PAIRS, SCALE, Op
from compiler.program.program import Program
from lpu.check.check import check
from lpu.prove.prove import prove
from models.configs.gpt_oss import GptOssConfig

MANY = replace(OSS, name="many-oss", layers=1, kinds=("full",), experts=100, chosen=3, ffn=64, window=None)
Case = tuple[GptOssConfig, str, int, dict[str, Any]]
PAIR: Case = (replace(OSS, layers=1, kinds=("window",)), "pair", 3, {"tp": 2, "pp": 1})
CASES: dict[str, Case] = {
    "one chip": (OSS, "pair", 1, {"tp": 1, "pp": 1}),
    "two chips, three rows": PAIR,
    "rows of four chips, five rows": (OSS, "quad", 5, {"tp": 4, "pp": 1, "layout": "row"}),
    "columns of four chips, each expert its own slot": (OSS, "quad", 5, {"tp": 4, "pp": 1}),
    "2d of four chips": (OSS, "quad", 1, {"tp": 4, "pp": 1, "layout": "2d"}),
    "a hundred experts on eight chips": (MANY, "lpx-tray", 2, {"tp": 8, "pp": 1}),
}
QUICK = ("two chips, three rows",)


def of(case: Case) -> Any:
    """(step, program) of a case."""
    config, rack, batch, options = case
    return mixture(config, rack, batch, tuple(options.items()))


@pytest.mark.parametrize("case", slow_but(QUICK, CASES))
def test_bits_equal_the_model_and_the_program_is_proved(case: str) -> None:
    step, program = of(CASES[case])
    assert check(program, 80).ok
    found = prove(program)
    assert found.ok, found.reason
    weights = {path: np.array(value) for path, value in drawn(step).items()}
    for path, value in weights.items():  # large enough that gates are clipped
        value *= value.dtype.type(64 if path.endswith("gate_up.bias") else 1)
    assert_bits(step, program, weights)


def _ffn(program: Program) -> int:
    return next(
        i for i, one in enumerate(program.blocks) if any((c.op == Op.XMM).any() for c in one.columns.values())
    )


def _with(program: Program, **changes: Any) -> Program:
    blocks, at = list(program.blocks), _ffn(program)
    blocks[at] = replace(blocks[at], **changes)
    return replace(program, blocks=tuple(blocks))


def _kernels(kind: type, **changes: Any) -> Callable[[Program], Program]:
    def mutate(program: Program) -> Program:
        kernels = [replace(k, **changes) if isinstance(k, kind) else k for k in program.manifest.kernels]
        return replace(program, manifest=replace(program.manifest, kernels=tuple(kernels)))

    return mutate


def _of_another_line(program: Program) -> Program:
    """A row of activations takes the biases that lie beside its next line."""
    columns = program.blocks[_ffn(program)].columns[80]
    row = int(np.flatnonzero(columns.op == Op.WGLU)[0])
    changed = {name: getattr(columns, name).copy() for name in ("src3", "src3_tag")}
    for values in changed.values():
        values[row] += OSS.experts
    return _with(program, columns={80: replace(columns, **changed)})


def _load(kind: int, which: int, name: str, by: int) -> Callable[[Program], Program]:
    def mutate(program: Program) -> Program:
        loads = program.blocks[_ffn(program)].loads
        values, at = getattr(loads, name).copy(), np.flatnonzero(loads.kind == kind)[which]
        values[at] += by
        return _with(program, loads=replace(loads, **{name: values}))

    return mutate


def _rolled(program: Program) -> Program:
    """Two lanes of the biases of an expert exchanged."""
    block = program.blocks[_ffn(program)]
    words = np.flatnonzero(block.loads.kind == GAIN)
    at = block.slots[int(block.loads.tensor[words[0]])][1]
    maps = list(block.maps)
    maps[at] = maps[at].copy()
    maps[at][[0, 1]] = maps[at][[1, 0]]
    return _with(program, maps=tuple(maps))


MUTATIONS: dict[str, Callable[[Program], Program]] = {
    "biases of another line": _of_another_line,
    "biases of another expert": _load(GAIN, 1, "n0", 80),
    "biases of other lanes": _rolled,
    "biases of fewer experts": _kernels(WeightedGluKernel, biases=7),
    "no biases of experts": _kernels(WeightedGluKernel, biases=0),
    "a gate that is not clipped": _kernels(WeightedGluKernel, activation="silu"),
    "a router without its bias": _kernels(RankKernel, biased=False),
    "the scales of a router for its bias": _load(SCALE, 1, "n0", 80),
    "shares rounded as another value": _kernels(CastKernel, shares=False),
}


ONLY_PROVED = ("biases of other lanes", "shares rounded as another value")


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_caught_by_check_and_proof(name: str) -> None:
    _, program = of(PAIR)
    mutated = MUTATIONS[name](program)
    assert not check(mutated, 80).ok or name in ONLY_PROVED
    assert not prove(mutated).ok


def test_a_bias_of_a_router_decides_what_is_chosen() -> None:
    """Whatever its logits: experts 2 and 5 are taken, and count by what is left of them."""
    step, program = of(PAIR)
    weights: Arrays = {path: np.array(value) for path, value in drawn(step).items()}
    weights["layers.0.ffn.router.bias"][:] = 0
    weights["layers.0.ffn.router.bias"][[2, 5]] = 1e4
    assert_bits(step, program, weights)
    others = [one for one in range(8) if one not in (2, 5)]
    weights["layers.0.ffn.gate_up.bias"].reshape(8, -1)[others] = 7
    weights["layers.0.ffn.down.bias"][others] = 7
    assert_bits(step, program, weights)


def test_where_room_is_scarce_two_experts_share_words(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = of(PAIR)
    monkeypatch.setattr("compiler.lower.ops.experts.MOST_OF_SRAM", (0, 1))
    config, rack, batch, options = PAIR
    step, program = of((replace(config, name="paired"), rack, batch, options))
    assert check(program, 80).ok
    found = prove(program)
    assert found.ok, found.reason
    assert_bits(step, program, drawn(step))
    words = [int(one.blocks[_ffn(one)].loads.words.sum()) for one in (whole, program)]
    loads = program.blocks[_ffn(program)].loads
    assert words[0] - words[1] == int(loads.words[loads.kind == PAIRS].sum()) > 0
    assert whole.manifest.cycles == program.manifest.cycles
    changes: tuple[dict[str, Any], ...] = ({"paired": False}, {"experts": 7}, {"k_lines": 2})
    for change in changes:
        mutated = _kernels(ExpertTileKernel, **change)(program)
        assert not check(mutated, 80).ok
        assert not prove(mutated).ok
