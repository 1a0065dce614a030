"""Experts over several trays: sums of attention are added on the chips that each of the trays is near to."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from beside import compiled
from mixtures import assert_bits, drawn
from models_named import of_model
from test_latent_experts import TINY

import compiler.lower.ops.dealt as dealt
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


@pytest.mark.slow
def test_bits_equal_the_model() -> None:
    step, program = over_three_trays()
    assert_bits(step, program, drawn(step))
