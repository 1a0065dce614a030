"""Every fault is caught by the checker or the linker, or is provably harmless: the dataflow is the same."""

from dataclasses import dataclass

import numpy as np
import pytest
from faults import FAULTS, same
from steps import llama

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import Columns
from compiler.program.program import Loads, Program
from fabric.rack import load_rack
from lpu.check.check import check_columns
from lpu.link.link import Dataflow, LinkError, link

SEEDS = 40


@dataclass(frozen=True)
class Subject:
    """A legal program of every opcode that faults are made in, and its dataflow."""

    program: Program
    columns: Columns
    loads: Loads
    flow: Dataflow


@pytest.fixture(scope="module")
def subject() -> Subject:
    program = compile_program(llama(), load_rack("quad"), CompileOptions(tp=4, layout="2d"))
    columns, loads = program.expand(160), program.loads()
    assert check_columns(program.manifest, loads, columns).ok
    return Subject(program, columns, loads, link(program.manifest, loads, columns))


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_caught_or_provably_harmless(subject: Subject, name: str) -> None:
    caught = 0
    for seed in range(SEEDS):
        faulty = FAULTS[name](subject.columns, subject.program.manifest, np.random.default_rng(seed))
        if not check_columns(faulty.manifest, subject.loads, faulty.columns).ok:
            caught += 1
            continue
        try:
            flow = link(faulty.manifest, subject.loads, faulty.columns)
        except LinkError:
            caught += 1
            continue
        assert same(flow, subject.flow), f"seed {seed}: unnoticed, and the dataflow differs"
    assert caught >= SEEDS // 2


def test_a_fault_that_only_moves_data_changes_what_is_linked(subject: Subject) -> None:
    """The checker finds swapped tiles by their tags; the linker believes addresses, so its result differs."""
    faulty = FAULTS["swapped weight tiles"](
        subject.columns, subject.program.manifest, np.random.default_rng(0)
    )
    assert not check_columns(faulty.manifest, subject.loads, faulty.columns).ok
    assert not same(link(faulty.manifest, subject.loads, faulty.columns), subject.flow)
