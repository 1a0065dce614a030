"""Lowering of add: the residual sum, wherever the operand that was computed last lies."""

from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_lines, require_f32
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.program.instructions.vector import AddKernel
from compiler.program.isa import F32_LANES, Op


def lower_add(low: Lowering, node: Node) -> None:
    """The residual is held where the new operand lies, or is sent there."""
    require_f32(low, node)
    older_first = sorted(node.inputs, key=lambda view: low.lines(view, node)[0].uid)
    by_lines(low, node, Op.ADD, AddKernel(), older_first, _added_next(low, node))


def _added_next(low: Lowering, node: Node) -> View | None:
    """What the sum is added to next, if nothing else reads it and that was computed after its older operand.

    It is made there. An older value, as the residual of a layer with two branches, waits for the sum instead.
    """
    readers = low.demands.readers(node.outputs[0])
    if len(readers) != 1 or low.demands.rule(readers[0][0]) is not RULE:
        return None
    reader, at = readers[0]
    (other,) = [view for i, view in enumerate(reader.inputs) if i != at]
    oldest = min(low.lines(view, node)[0].uid for view in node.inputs)
    return other if other in low.where and low.lines(other, reader)[0].uid > oldest else None


RULE = LoweringRule(op="add", lower=lower_add, wants=every(F32_LANES), handed=by_line, residual=True)
