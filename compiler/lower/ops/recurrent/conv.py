"""Lowering of conv: a row for each run of lines, where it lies; its last inputs are kept there."""

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import in_natural_order
from compiler.lower.layout import natural
from compiler.lower.ops.recurrent.states import beside, kernel_of, regions
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.recurrent import ConvKernel
from compiler.program.isa import F32_LANES, Op


def lower_conv(low: Lowering, node: Node) -> None:
    """CONV rows, none of which waits for the lines of another."""
    view, taps = node.inputs[0], [one.value for one in node.inputs[3:]]
    value, cut = low.segments(view, node)
    held = kernel_of(low, node, 1)
    kernel = ConvKernel(**held, biased=len(taps) > held["kept"] + 1)
    source = cut.first
    owner = value.owner[source]
    fresh = (np.diff(source, prepend=-9) != 1) | np.isin(source, value.first)
    first = np.flatnonzero(fresh)
    n = np.diff(np.append(first, len(source)))
    _, columns = natural(view.width, low.group.ranks)
    out = low.value("f32", owner, columns, first=first, count=n)
    words, tags = beside(low, owner[first], n, [(tap, columns) for tap in taps])
    state = regions(low, owner[first], n * kernel.kept * kernel.cached)
    low.rows.add(
        Op.CONV,
        rank=owner[first],
        n=n,
        aux=low.kernels.index(kernel),
        src_tag=value.tag(source[first]),
        src2=state,
        src2_tag=tag(low.weight_uid(), first),
        src3=words,
        src3_tag=tags,
        dst_tag=out.tag(first),
    )
    in_natural_order(low, node.outputs[0], out, view.width)


RULE = LoweringRule(op="conv", lower=lower_conv, wants=every(F32_LANES))
