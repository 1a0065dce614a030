"""Lowering of rope: each segment of heads, turned by a table that all blocks on a chip share."""

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_segments
from compiler.lower.rule import AS_RESULT, LoweringRule, every
from compiler.program.instructions.vector import RopeKernel
from compiler.program.isa import SHARED, SPACE_SHIFT, WORD_BYTES, Op, ceil_div

SHARED_ANGLES = SHARED << SPACE_SHIFT  # the first word of the shared space: one table per chip


def lower_rope(low: Lowering, node: Node) -> None:
    """A ROPE row for each segment."""
    cut = by_segments(low, node)
    table = low.graph.values[node.inputs[1].value]
    positions, _, pairs = table.shape
    head_dim = low.graph.values[node.outputs[0]].shape[-1]
    low.angles.add(table.name)
    kernel = RopeKernel(
        head_dim=head_dim,
        input="f32" if cut.source.dtype == "f32" else "f16",
        positions=positions,
        stride=int(ceil_div(4 * pairs, WORD_BYTES)),
        first=int(node.attributes.get("first", 0)),
        pairs=0 if 2 * pairs == head_dim else pairs,
    )
    cut.add_rows(low, Op.ROPE, kernel, n=cut.segments.width // head_dim, src2=SHARED_ANGLES)


RULE = LoweringRule(op="rope", lower=lower_rope, wants=every(AS_RESULT), by_head=True, angles=1)
