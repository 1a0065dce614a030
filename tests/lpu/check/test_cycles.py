"""The checker's timing rules: one for every opcode, and open to the opcodes of extensions."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import handmade as hand
import pytest
from handmade import CONTEXT, change

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import TRANSIENT, VXM, Holds, Instruction, Kernel, Op, Operand, halved, same
from compiler.program.program import Program
from lpu.check.check import Report, check_columns
from lpu.check.cycles import CYCLES, Vector, register
from lpu.link.link import link

OWN = 200


class OwnKernel(Kernel):
    """The kernel of an extension's opcode."""

    family: ClassVar[str] = "own"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A CAST under another number, as an extension would register it."""
    record = Instruction(
        op=OWN,
        name="OWN",
        unit=VXM,
        kernel=OwnKernel,
        reads=(Operand("src", TRANSIENT, same, Holds.F32),),
        write=Operand("dst", TRANSIENT, halved, Holds.F16),
        ordered=True,
    )
    monkeypatch.setitem(INSTRUCTIONS, OWN, record)
    yield
    CYCLES.pop(OWN, None)


def with_own(program: Program) -> Report:
    """The matmul with the extension's opcode in place of its casts, and what the checker says of it."""
    columns, kernels = program.expand(CONTEXT), (*program.manifest.kernels, OwnKernel())
    for row in (hand.CAST, hand.CAST + hand.CHIP_ROWS):
        columns = change(columns, row, op=OWN, aux=len(kernels) - 1)
    manifest = replace(program.manifest, kernels=kernels)
    link(manifest, program.loads(), columns)
    return check_columns(manifest, program.loads(), columns)


@pytest.mark.usefixtures("own")
def test_an_opcode_without_a_timing_rule_is_a_violation() -> None:
    report = with_own(hand.matmul())
    assert report.counts[0] == report.total == 2
    assert "OWN chip 0 cycle 7: the checker has no timing rule for it" in str(report)


@pytest.mark.usefixtures("own")
def test_one_call_times_the_opcode_of_an_extension() -> None:
    register(OWN, Vector(lambda n, k: 80 * n, 1))
    assert with_own(hand.matmul()).ok


@pytest.mark.usefixtures("own")
def test_a_slower_rule_than_the_rows_keep_to_is_found() -> None:
    register(OWN, Vector(lambda n, k: 80 * n, 2, reduces=True))
    report = with_own(hand.matmul())
    assert report.counts[6] == 2
    assert "OWN chip 0 cycle 7: takes 7 cycles, must take 16" in str(report)


def test_a_second_timing_rule_for_an_opcode_is_refused() -> None:
    with pytest.raises(ValueError, match="it has a timing rule already"):
        register(Op.ADD, Vector(lambda n, k: 80 * n, 1))
