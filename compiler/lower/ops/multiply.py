"""Lowering of multiply, multiply_add and multiply_lanes: line by line, as the residual sum."""

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_lines, require_f32
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.program.instructions.vector import LaneMulKernel, MadKernel, MulKernel
from compiler.program.isa import F32_LANES, Op


def lower_multiply(low: Lowering, node: Node) -> None:
    """A row for each run of lines."""
    by_lines(low, node, Op.MUL, MulKernel(factor=node.attributes["factor"]))


def lower_multiply_add(low: Lowering, node: Node) -> None:
    """The residual is the first operand, whichever was computed last."""
    require_f32(low, node)
    by_lines(low, node, Op.MAD, MadKernel(factor=node.attributes["factor"]))


def lower_multiply_lanes(low: Lowering, node: Node) -> None:
    """A row for each run of lines, its factors beside it."""
    by_lines(low, node, Op.VMUL, LaneMulKernel(), node.inputs[:1], factors=node.inputs[1].value)


MULTIPLY = LoweringRule(
    op="multiply", lower=lower_multiply, wants=every(F32_LANES), handed=by_line, residual=True
)
MULTIPLY_ADD = LoweringRule(
    op="multiply_add", lower=lower_multiply_add, wants=every(F32_LANES), handed=by_line, residual=True
)
MULTIPLY_LANES = LoweringRule(
    op="multiply_lanes", lower=lower_multiply_lanes, wants=every(F32_LANES), handed=by_line, residual=True
)
