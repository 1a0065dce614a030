"""Lowering of gate: line by line, where the operand lies that was computed last."""

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_lines
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.recurrent import GateKernel
from compiler.program.isa import F32_LANES, Op


def lower_gate(low: Lowering, node: Node) -> None:
    """GATE rows: the values in `src`, what gates them in `src2`."""
    by_lines(low, node, Op.GATE, GateKernel())


RULE = LoweringRule(op="gate", lower=lower_gate, wants=every(F32_LANES))
