from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from compiler.program.program import LOADS, Loads, Program
from lpu.check.check import Report, check, check_columns
from lpu.check.rows import Batches
from lpu.check.weights import by_chip

CONTEXT = 80


def with_loads(program: Program, fault: Callable[[Loads], Loads]) -> Program:
    """A program whose biggest block preloads something else in every one of its calls."""
    big = max(program.blocks, key=lambda block: len(block.loads))
    blocks = tuple(replace(b, loads=fault(b.loads)) if b is big else b for b in program.blocks)
    return replace(program, blocks=blocks)


def as_one(program: Program) -> Report:
    """The check of all preloaded values in one table."""
    stated = program.manifest.cycles[CONTEXT]
    return check_columns(program.manifest, program.loads(), program.expand(CONTEXT), stated)


def test_the_values_by_chip_are_all_values_of_the_program_each_once(piped_program: Program) -> None:
    loads, pieces = piped_program.loads(), list(by_chip(piped_program))
    assert sorted(np.concatenate([p.number for p in pieces]).tolist()) == list(range(len(loads)))
    assert [set(p.loads.chip.tolist()) for p in pieces] == [{0}, {1}, {2}, {3}]
    for piece in pieces:
        for name in set(LOADS) - {"tensor"}:
            assert np.array_equal(getattr(piece.loads, name), getattr(loads, name)[piece.number]), name


@pytest.mark.parametrize(
    ("column", "by"),
    [("addr", 1), ("addr", -1), ("kind", 1), ("tag", 1), ("k0", 320), ("n0", 80), ("words", 1)],
)
def test_a_wrong_value_is_found_chip_by_chip_as_in_one_table(
    piped_program: Program, column: str, by: int
) -> None:
    def fault(loads: Loads) -> Loads:
        values = getattr(loads, column).copy()
        values[len(values) // 2] += by
        return replace(loads, **{column: values})

    faulty = with_loads(piped_program, fault)
    found = check(faulty, CONTEXT)
    assert not found.ok
    assert found == as_one(faulty)


def test_a_chip_that_preloads_nothing_is_found(piped_program: Program) -> None:
    def fault(loads: Loads) -> Loads:
        keep = loads.chip != 0
        return Loads(**{name: getattr(loads, name)[keep] for name in LOADS})

    report = check(with_loads(piped_program, fault), CONTEXT)
    assert report.counts[2] == as_one(with_loads(piped_program, fault)).counts[2] > 0


@pytest.mark.parametrize("most", [1, 3, 100])
def test_batches_bring_every_entry_once_with_all_of_its_chip(most: int) -> None:
    chip = np.array([2, 0, 2, 5, 0, 2, 1])
    batches = Batches(np.bincount(chip, minlength=6), most)
    pieces = [piece.tolist() for piece in batches.of(chip)]
    assert sorted(i for piece in pieces for i in piece) == list(range(len(chip)))
    for (first, last), piece in zip(batches, pieces, strict=True):
        assert all(first <= chip[i] < last for i in piece)
        assert len(piece) <= most or len(set(chip[piece].tolist())) == 1
