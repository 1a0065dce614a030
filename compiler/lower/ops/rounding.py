"""Lowering of the roundings: round16 by tiles or segments; round8 is done by GPUs before they send.

A residual that is multiplied without a norm before it is rounded as `prescale` scales one: on every rank that
multiplies. So blocks may hand it on. Other values are rounded where they lie.
"""

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_segments
from compiler.lower.ops.tiles import by_tiles
from compiler.lower.rule import AS_RESULT, Handed, LoweringRule, Uses
from compiler.program.instructions.vector import CastKernel
from compiler.program.isa import Op


def _multiplied(uses: Uses, node: Node) -> bool:
    """Whether the operand is a whole residual, and the result is the input of products alone."""
    (view,) = node.inputs
    maker, readers = uses.maker(view.value), uses.readers(node.outputs[0])
    residual = maker is not None and uses.rule(maker).residual
    whole = residual and (view.start, view.width) == (0, uses.graph.values[view.value].shape[-1])
    return whole and all(uses.rule(reader).joint is not None and not at for reader, at in readers)


def _shared_out(uses: Uses, node: Node) -> bool:
    """Whether the operand is how much each expert counts, which every rank has whole."""
    maker = uses.maker(node.inputs[0].value)
    return maker is not None and uses.rule(maker).shares


def lower_round16(low: Lowering, node: Node) -> None:
    """A CAST row for each tile of input rows of a product, or for each segment."""
    if _shared_out(low.demands, node):
        value, _ = low.lines(node.inputs[0], node)
        by_tiles(low, node, value, Op.CAST, CastKernel(shares=True), None)
        return
    if _multiplied(low.demands, node):
        value, _ = low.lines(node.inputs[0], node)
        active = low.multipliers(node.outputs[0])
        low.gather(value, np.repeat(active[:, None], value.lines, axis=1))
        by_tiles(low, node, value, Op.CAST, CastKernel(), None)
        return
    cut = by_segments(low, node)
    cut.add_rows(low, Op.CAST, CastKernel(), n=cut.segments.lines)


ROUND8 = LoweringRule(op="round8", rounds_to="fp8")
ROUND16 = LoweringRule(
    op="round16",
    lower=lower_round16,
    wants=lambda uses, node, operand: None if _multiplied(uses, node) else AS_RESULT,
    handed=lambda uses, node: Handed.WHOLE if _multiplied(uses, node) else None,
    rounds_to="fp16",
)
