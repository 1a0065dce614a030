"""Lowering of bias: a row for each run of lines of a product, where it lies; the bias is preloaded there."""

import numpy as np

from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.layout import Segments
from compiler.lower.rows import tag
from compiler.lower.rule import AS_RESULT, LoweringRule, every
from compiler.program.instructions.vector import BiasKernel
from compiler.program.isa import F32_LANES, Op


def lower_bias(low: Lowering, node: Node) -> None:
    """BIAS rows: each from lines that one row left, so that none waits for the lines of another."""
    view = node.inputs[0]
    value, cut = low.segments(view, node)
    source = (cut.first[:, None] + np.arange(cut.lines)).reshape(-1)  # line of the product, by line of ours
    lanes = value.columns.reshape(-1, F32_LANES)[source]
    columns = np.where(lanes >= 0, lanes - view.start, -1).reshape(-1)
    owner = value.owner[source]
    fresh = (np.diff(source, prepend=-9) != 1) | np.isin(source, value.first)
    first = np.flatnonzero(fresh)
    n = np.diff(np.append(first, len(source)))
    out = low.value("f32", owner, columns, first=first, count=n)
    uid = low.weight_uid()
    mine = np.full_like(value.columns.reshape(-1, F32_LANES), -1)  # the lines of other products hold no bias
    mine[source] = columns.reshape(-1, F32_LANES)
    words = low.gain(node.inputs[1].value, mine.reshape(-1), owner, source, uid)
    low.rows.add(
        Op.BIAS,
        rank=owner[first],
        n=n,
        aux=low.kernels.index(BiasKernel()),
        src_tag=value.tag(source[first]),
        src2=words[first],
        src2_tag=tag(uid, source[first]),
        dst_tag=out.tag(first),
    )
    own = Segments(
        start=0,
        total=view.width,
        width=cut.width,
        first=np.arange(len(cut)) * cut.lines,
        lines=cut.lines,
        starts=cut.starts,
    )
    low.where[View(value=node.outputs[0], start=0, width=view.width)] = (out, own)


RULE = LoweringRule(op="bias", lower=lower_bias, wants=every(AS_RESULT))
