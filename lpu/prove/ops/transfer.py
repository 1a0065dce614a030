"""Transfers: the same lines at the peer."""

from typing import Any

from compiler.program.isa import Op
from lpu.prove.known import Known
from lpu.prove.rule import Proved, RowOperands


def _copied(known: Known, row: RowOperands) -> tuple[Any, ...]:
    return row.src


PROOF = tuple(Proved(op=op, rule=_copied, copies=True) for op in (Op.SEND, Op.FORWARD))
