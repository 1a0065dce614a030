"""Experts over several trays: sums of attention are added on the chips that each of the trays is near to."""

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from beside import compiled
from mixtures import assert_bits, drawn
from models_named import of_model
from test_latent_experts import TINY

import compiler.lower.ops.dealt as dealt
from compiler.program.isa import is_transfer
from compiler.program.program import Program
from compiler.route.route import Edge, Router
from lpu.check.check import check
from lpu.prove.prove import prove

# Eight parts of the sum over heads, one for each chip of a tray; experts that all chips of three trays share.
WIDE = replace(
    TINY,
    **{"name": "wide", "layers": 1, "dense": 0, "hidden": 640, "heads": 8, "value": 256},
    **{"experts": 4, "chosen": 2, "groups": 1, "keep": 1, "expert_ffn": 1920},
)


@cache
def over_three_trays() -> Any:
    """(step, program with its numbers in the manifest)."""
    step, program = compiled(WIDE, "lpx", contexts=(80,), pp=1, tp=24)
    return step, of_model(program, WIDE)


def test_each_tray_has_its_sums_from_chips_that_are_next_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, program = over_three_trays()
    assert check(program, 80).ok
    found = prove(program)
    assert found.ok, found.reason
    monkeypatch.setattr(dealt, "_relayed", lambda *_: [])  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    by_owners = compiled(WIDE, "lpx", contexts=(80,), pp=1, tp=24)[1]
    assert program.manifest.cycles[80] < by_owners.manifest.cycles[80]


def _fullest_door(program: Program) -> int:
    """Words over the fullest link between two trays."""
    rows, words = program.expand(80), Counter[tuple[int, int]]()
    for row in np.flatnonzero(is_transfer(rows.op) & (rows.chip // 8 != rows.peer // 8)).tolist():
        words[int(rows.chip[row]), int(rows.peer[row])] += int(rows.n[row])
    return max(words.values())


def test_activations_of_slots_take_the_doors_of_a_tray_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    model = replace(WIDE, chosen=4)
    program = compiled(model, "lpx", contexts=(80,), pp=1, tp=24)[1]
    assert check(program, 80).ok
    tree = Router.tree

    def first(router: Router, source: int, targets: tuple[int, ...], _: int = 0) -> tuple[Edge, ...]:
        return tree(router, source, targets)

    monkeypatch.setattr(Router, "tree", first)
    by_one = compiled(model, "lpx", contexts=(80,), pp=1, tp=24)[1]
    assert _fullest_door(program) < _fullest_door(by_one)
    assert program.manifest.cycles[80] < by_one.manifest.cycles[80]


@pytest.mark.slow
def test_bits_equal_the_model() -> None:
    step, program = over_three_trays()
    assert_bits(step, program, drawn(step))
