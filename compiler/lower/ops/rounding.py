"""Lowering of the roundings: round16 by tiles, pairs of lines or segments; GPUs do round8 before they send.

A residual that is multiplied without a norm before it is rounded as `prescale` scales one: on every rank that
multiplies. So blocks may hand it on. So are latents that experts take, where no rank has two of their lines:
rounded where they lie each would be half a line of fp16, as many to send, and twice the tiles to multiply.
A sum that leaves the chips is rounded by pairs of lines, other values where they lie.
"""

import numpy as np

from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_segments
from compiler.lower.layout import natural
from compiler.lower.ops.tiles import by_tiles
from compiler.lower.rule import AS_RESULT, Handed, LoweringRule, Uses
from compiler.program.instructions.vector import CastKernel
from compiler.program.isa import F16_LANES, Op


def _multiplied(uses: Uses, node: Node) -> bool:
    """Whether the operand is a whole residual, and the result is the input of products alone."""
    (view,) = node.inputs
    maker, readers = uses.maker(view.value), uses.readers(node.outputs[0])
    residual = maker is not None and uses.rule(maker).residual
    whole = residual and (view.start, view.width) == (0, uses.graph.values[view.value].shape[-1])
    if not whole or not readers:
        return False
    return all(uses.rule(reader).joint is not None and not at for reader, at in readers)


def _given_back(uses: Uses, node: Node) -> bool:
    """Whether the operand is a sum in lines that lie in order, and the result leaves the chips."""
    maker = uses.maker(node.inputs[0].value)
    return maker is not None and uses.rule(maker).residual and not uses.readers(node.outputs[0])


def _shared_out(uses: Uses, node: Node) -> bool:
    """Whether the operand is how much each expert counts, which every rank has whole."""
    maker = uses.maker(node.inputs[0].value)
    return maker is not None and uses.rule(maker).shares


def _thin(low: Lowering, node: Node) -> bool:
    """Whether all that reads the result multiplies it whole, and no rank has two lines of the operand."""
    uses, (view,) = low.demands, node.inputs
    readers = uses.readers(node.outputs[0])
    if not readers or not all(uses.rule(reader).everywhere and not at for reader, at in readers):
        return False
    value, cut = low.segments(view, node)
    if value.lines < 2 or value.dtype != "f32" or len(cut) != value.lines:
        return False
    _, columns = natural(view.width, low.group.ranks)
    return np.array_equal(value.columns, columns) and len(np.unique(value.owner)) == value.lines


def lower_round16(low: Lowering, node: Node) -> None:
    """A CAST row for each tile of input rows of a product, or for each segment."""
    if _shared_out(low.demands, node):
        value, _ = low.lines(node.inputs[0], node)
        by_tiles(low, node, value, Op.CAST, CastKernel(shares=True), None)
        return
    if _multiplied(low.demands, node) or _thin(low, node):
        value, _ = low.lines(node.inputs[0], node)
        active = low.multipliers(node.outputs[0])
        low.gather(value, np.repeat(active[:, None], value.lines, axis=1))
        by_tiles(low, node, value, Op.CAST, CastKernel(), None)
        return
    if _given_back(low.demands, node):
        _by_pairs(low, node)
        return
    cut = by_segments(low, node)
    cut.add_rows(low, Op.CAST, CastKernel(), n=cut.segments.lines)


def _by_pairs(low: Lowering, node: Node) -> None:
    """A row for each fp16 line, where the first of its two f32 lines lies; the second one is sent there."""
    value, _ = low.lines(node.inputs[0], node)
    line = np.arange(value.lines)
    first = np.arange(0, value.lines, 2)
    owner = value.owner[first]
    need = np.zeros((low.group.ranks, value.lines), bool)
    need[owner[line // 2], line] = True
    low.gather(value, need)
    columns = np.full(len(first) * F16_LANES, -1)
    columns[: len(value.columns)] = value.columns
    pairs = np.arange(len(first))
    out = low.value("f16", owner, columns, first=pairs, count=np.ones_like(pairs))
    low.rows.add(
        Op.CAST,
        rank=owner,
        n=np.minimum(2, value.lines - first),
        aux=low.kernels.index(CastKernel()),
        src_tag=value.tag(first),
        dst_tag=out.tag(pairs),
    )
    low.where[View(value=node.outputs[0], start=0, width=node.inputs[0].width)] = (out, None)


ROUND8 = LoweringRule(op="round8", rounds_to="fp8")
ROUND16 = LoweringRule(
    op="round16",
    lower=lower_round16,
    wants=lambda uses, node, operand: None if _multiplied(uses, node) else AS_RESULT,
    handed=lambda uses, node: Handed.WHOLE if _multiplied(uses, node) else None,
    rounds_to="fp16",
)
