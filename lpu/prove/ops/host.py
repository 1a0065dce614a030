"""The host lanes: lines of a hop's message and of its answer. KV that comes and goes has no dataflow."""

from typing import Any

from compiler.program.isa import F16_LANES, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import Vector
from lpu.prove.ops.taken import of_kind
from lpu.prove.refused import need
from lpu.prove.rule import Proved, RowOperands


def _take(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lines of the message in order; what crosses in fp8 was rounded to it before."""
    need(known.message >= 0, "takes a message, this is no hop")
    need(row.kernel.wire == known.wires[0], f"its wire is {row.kernel.wire}, the hop's {known.wires[0]}")
    need(row.src3 >= 0, f"takes line {row.src3} of the message")
    width = known.terms.width(known.message)
    need(F16_LANES * (row.src3 + row.n - 1) < width, f"takes lines beyond the {width} lanes of its message")
    numbers = range(row.src3, row.src3 + row.n)
    return tuple(Vector(Holds.F16, known.message, known.lanes.half_line(i, width)) for i in numbers)


def _give(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lines of the answer by number; what they must be is compared at the end of the hop."""
    need(known.message >= 0, "gives an answer, this is no hop")
    need(row.kernel.wire == known.wires[1], f"its wire is {row.kernel.wire}, the hop's {known.wires[1]}")
    of_kind(row.src, Holds.F16 if row.kernel.wire == "fp16" else Holds.F32, "its operand")
    return row.src


def _moved(known: Known, row: RowOperands) -> tuple[Any, ...]:
    need(False, "moves KV or weights: no row of a step")
    return ()


PROOF = (
    Proved(op=Op.TAKE, rule=_take),
    Proved(op=Op.GIVE, rule=_give),
    Proved(op=Op.KVIN, rule=_moved),
    Proved(op=Op.KVOUT, rule=_moved),
    Proved(op=Op.LOAD, rule=_moved),
)
