"""Lowering of multiply and multiply_add: line by line, as the residual sum."""

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_lines
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.program.instructions.vector import MadKernel, MulKernel
from compiler.program.isa import F32_LANES, Op


def lower_multiply(low: Lowering, node: Node) -> None:
    """A row for each run of lines."""
    by_lines(low, node, Op.MUL, MulKernel(factor=node.attributes["factor"]))


def lower_multiply_add(low: Lowering, node: Node) -> None:
    """The residual is the first operand, whichever was computed last."""
    by_lines(low, node, Op.MAD, MadKernel(factor=node.attributes["factor"]))


MULTIPLY = LoweringRule(
    op="multiply", lower=lower_multiply, wants=every(F32_LANES), handed=by_line, residual=True
)
MULTIPLY_ADD = LoweringRule(
    op="multiply_add", lower=lower_multiply_add, wants=every(F32_LANES), handed=by_line, residual=True
)
