"""Seeded faults in a legal program: each is caught by the checker or the linker, or provably harmless."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from faults import FAULTS, same
from steps import llama

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import Columns
from compiler.program.program import Loads, Program
from fabric.rack import load_rack
from lpu.check.check import check_columns
from lpu.link.link import Dataflow, LinkError, link

SEEDS = 2000  # of each kind
CASES = SEEDS * len(FAULTS)


@dataclass(frozen=True)
class Subject:
    """A legal program of every opcode that faults are made in, and its dataflow."""

    program: Program
    columns: Columns
    loads: Loads
    flow: Dataflow


@cache
def subject() -> Subject:
    program = compile_program(llama(), load_rack("quad"), CompileOptions(tp=4, layout="2d"))
    columns, loads = program.expand(160), program.loads()
    assert check_columns(program.manifest, loads, columns).ok
    return Subject(program, columns, loads, link(program.manifest, loads, columns))


def came_to(kind: str, seed: int) -> str:
    """What a fault comes to: "caught", or "harmless" if the dataflow is the same. Raises AssertionError."""
    of = subject()
    faulty = FAULTS[kind](of.columns, of.program.manifest, np.random.default_rng(seed))
    if not check_columns(faulty.manifest, of.loads, faulty.columns).ok:
        return "caught"
    try:
        flow = link(faulty.manifest, of.loads, faulty.columns)
    except LinkError:
        return "caught"
    assert same(flow, of.flow), f"{kind}, seed {seed}: unnoticed, and the dataflow differs"
    return "harmless"


def hold_fault(case: int) -> str:
    """A case of the corpus: every kind in turn."""
    return came_to(list(FAULTS)[case % len(FAULTS)], case // len(FAULTS))
