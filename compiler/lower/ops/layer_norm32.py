"""Lowering of layer_norm32: each rank norms the lines that it owns, by the mean and deviation of all."""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.ops.recurrent.states import beside
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.program.instructions.norms import LayerNormKernel, MomentsKernel
from compiler.program.isa import F32_LANES, Op


def lower_layer_norm32(low: Lowering, node: Node) -> None:
    """All lines to every rank that owns some, a MOMENTS row there, and an LNORM row for each run of its own.

    Gain and bias lie beside each other on the rank: the words of a run's gain, then those of its bias.
    """
    view, gain, bias = node.inputs[0], node.inputs[1].value, node.inputs[2].value
    value, segments = low.segments(view, node)
    if len(segments) != value.lines:
        raise CompileError(
            "lower",
            f"{node.path}: layer_norm32 ({node.source})",
            f"its input is {len(segments)} of {value.lines} lines",
            "Give it a residual sum, or what one matmul returns.",
        )
    own = np.unique(value.owner)
    active = np.zeros(low.group.ranks, bool)
    active[own] = True
    low.gather(value, np.repeat(active[:, None], value.lines, axis=1))
    stat = low.value("stat", np.zeros(1, np.int64), first=np.zeros(1, np.int64), count=np.ones(1, np.int64))
    stat.held[: len(active), 0] = active
    low.rows.add(
        Op.MOMENTS,
        rank=own,
        n=value.lines,
        aux=low.kernels.index(MomentsKernel(width=view.width, eps=node.attributes["eps"])),
        src_tag=value.tag(0),
        dst_tag=stat.tag(0),
    )
    first = np.flatnonzero(np.diff(value.owner, prepend=-1))
    count = np.diff(np.append(first, value.lines))
    words, tags = beside(low, value.owner[first], count, [(one, value.columns) for one in (gain, bias)])
    out = low.value("f32", value.owner, value.columns, first=first, count=count)
    low.rows.add(
        Op.LNORM,
        rank=value.owner[first],
        n=count,
        aux=low.kernels.index(LayerNormKernel()),
        src_tag=value.tag(first),
        src2_tag=stat.tag(0),
        src3=words,
        src3_tag=tags,
        dst_tag=out.tag(first),
    )
    low.where[View(value=node.outputs[0], start=0, width=view.width)] = (out, segments)


RULE = LoweringRule(
    op="layer_norm32", lower=lower_layer_norm32, wants=every(F32_LANES), handed=by_line, residual=True
)
