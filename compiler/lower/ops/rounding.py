"""Lowering of the roundings: round16 on each segment; round8 is done by GPUs before they send."""

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_segments
from compiler.lower.rule import AS_RESULT, LoweringRule, every
from compiler.program.instructions.vector import CastKernel
from compiler.program.isa import Op


def lower_round16(low: Lowering, node: Node) -> None:
    """A CAST row for each segment."""
    cut = by_segments(low, node)
    cut.add_rows(low, Op.CAST, CastKernel(), n=cut.segments.lines)


ROUND8 = LoweringRule(op="round8", rounds_to="fp8")
ROUND16 = LoweringRule(op="round16", lower=lower_round16, wants=every(AS_RESULT), rounds_to="fp16")
