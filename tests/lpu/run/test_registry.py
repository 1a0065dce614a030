"""Records of how opcodes are executed: refused twice, missed where rows need one, in any order."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from beside import compiled, made_up
from shapes import SMALL

from compiler.program.isa import Op
from lpu.run.error import MachineError
from lpu.run.machine import prepare
from lpu.run.ops.items import Executed
from lpu.run.ops.registry import EXECUTED, register


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    known = dict(EXECUTED)
    yield
    EXECUTED.clear()
    EXECUTED.update(known)


def test_two_records_of_one_opcode_are_refused() -> None:
    assert register(EXECUTED[Op.GLU]) is EXECUTED[Op.GLU]
    with pytest.raises(ValueError, match="opcode 18 has a record"):
        register(replace(EXECUTED[Op.GLU], by_count=True))
    with pytest.raises(ValueError, match="opcode 256 is not from 0 to 255"):
        register(Executed(op=256))


def test_rows_of_an_opcode_without_a_record_do_not_run() -> None:
    step, program = compiled(SMALL, "pair", tp=1)
    del EXECUTED[Op.GLU]
    with pytest.raises(MachineError, match=r"run: no kernel for GLU\. Register one"):
        prepare(program, made_up(step))


def test_the_order_of_records_changes_nothing() -> None:
    step, program = compiled(SMALL, "pair", tp=1)
    weights = made_up(step)
    (before,) = prepare(program, weights).entries.values()
    for op in sorted(EXECUTED, reverse=True):
        register_again(op)
    (after,) = prepare(program, weights).entries.values()
    assert after.layout == before.layout
    for ours, theirs in zip(after.tables[:6], before.tables[:6], strict=True):
        assert np.array_equal(ours, theirs)


def register_again(op: int) -> None:
    """Its record last of all."""
    register(EXECUTED.pop(op))
