"""Lowering of softcap: line by line, wherever its operand lies."""

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_lines
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.program.instructions.vector import CapKernel
from compiler.program.isa import F32_LANES, Op


def lower_softcap(low: Lowering, node: Node) -> None:
    """CAP rows."""
    by_lines(low, node, Op.CAP, CapKernel(cap=float(node.attributes["cap"])))


RULE = LoweringRule(op="softcap", lower=lower_softcap, wants=every(F32_LANES), handed=by_line, residual=True)
