"""Verbs that take a program to be legal: of one that is not they say which rule it breaks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.program.program import Program
from compiler.program.store import save, sealed
from lpu import api
from lpu.check.check import HazardError
from lpu.inputs.document import FileError
from lpu.legal import require_sound, taken_as_legal


@pytest.fixture(scope="module")
def tiny() -> Program:
    return api.compile("llama-tiny", rack="pair", context=(16,)).program


def with_rows(program: Program, **changes: Callable[[np.ndarray], np.ndarray]) -> Program:
    """The program with columns of its longest block changed."""
    blocks = list(program.blocks)
    which = max(range(len(blocks)), key=lambda i: len(blocks[i].columns[16]))
    rows = blocks[which].columns[16]
    changed = replace(rows, **{name: change(getattr(rows, name)) for name, change in changes.items()})
    blocks[which] = replace(blocks[which], columns={16: changed})
    return replace(program, blocks=tuple(blocks))


@pytest.mark.parametrize("name", ["op", "aux", "n", "t1"])
def test_rows_that_rule_0_does_not_know_are_no_rows_to_report_on(tiny: Program, name: str) -> None:
    wrong = with_rows(tiny, **{name: lambda values: values - 500})
    verbs: tuple[Callable[[Program], Any], ...] = (api.report, api.bounds, api.show)
    for verb in (*verbs, lambda program: api.run(program, [[1]], tokens=1)):
        with pytest.raises(HazardError, match="rule 0"):
            verb(wrong)


def test_ranks_below_the_first_are_named(tiny: Program) -> None:
    with pytest.raises(HazardError, match="its block names rank -3"):
        require_sound(with_rows(tiny, peer=lambda values: values - 2))


def test_what_fails_for_a_legal_program_is_a_bug_and_stays_one(tiny: Program) -> None:
    with pytest.raises(ZeroDivisionError), taken_as_legal(tiny):
        raise ZeroDivisionError
    wrong = with_rows(tiny, src=lambda values: values + 1000)
    with pytest.raises(HazardError, match="rule"), taken_as_legal(wrong):
        raise ZeroDivisionError
    with pytest.raises(FileError, match="of the user"), taken_as_legal(wrong):
        raise FileError("of the user")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"é": 1}, "make no model"),
        ({"hidden": "256"}, "hidden is '256', a model has int"),
        ({"hidden": True}, "hidden is True, a model has int"),
        ({"layers": 1.5}, "layers is 1.5, a model has int"),
        ({"eps": None}, "eps is None, a model has float"),
        ({"activation": 3}, "activation is 3"),
        ({"rope_scaling": {"rope_type": "no"}}, "make no model"),
    ],
)
def test_numbers_in_the_manifest_that_make_no_model_are_one_line(
    tiny: Program, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    about = tiny.manifest.model
    assert about.config is not None
    model = replace(about, config={**about.config, **change})
    save(sealed(replace(tiny, manifest=replace(tiny.manifest, model=model))), tmp_path)
    with pytest.raises(FileError, match=words):
        api.run(api.load_program(tmp_path), [[1]], tokens=1)
    assert not api.prove(api.load_program(tmp_path)).ok


def test_a_program_of_another_vocabulary_is_not_run(tiny: Program) -> None:
    wrong = replace(tiny, manifest=replace(tiny.manifest, vocab=tiny.manifest.vocab + 1))
    with pytest.raises(FileError, match="leaves 260 logits, llama-tiny has 259"):
        api.run(wrong, [[1]], tokens=1)
