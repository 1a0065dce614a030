"""Lowering of rms_norm32: each rank norms the lines that it owns, by the statistic of all."""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.ops.rms_norm import whole_stat
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.program.instructions.vector import NormKernel
from compiler.program.isa import F32_LANES, Op


def lower_rms_norm32(low: Lowering, node: Node) -> None:
    """All lines to every rank that owns some, an RSTAT row there, and a NORM row for each run of its own."""
    value, segments = low.segments(node.inputs[0], node)
    if len(segments) != value.lines:
        raise CompileError(
            "lower",
            f"{node.path}: rms_norm32",
            f"its input is {len(segments)} of {value.lines} lines",
            "Give it what one matmul returns.",
        )
    own = np.unique(value.owner)
    active = np.zeros(low.group.ranks, bool)
    active[own] = True
    stat = whole_stat(low, node, value, active)
    first = np.flatnonzero(np.diff(value.owner, prepend=-1))
    count = np.diff(np.append(first, value.lines))
    uid, lines = low.weight_uid(), np.arange(value.lines)
    gains = low.gain(node.inputs[1].value, value.columns, value.owner, lines, uid)
    out = low.value("f32", value.owner, value.columns, first=first, count=count)
    low.rows.add(
        Op.NORM,
        rank=value.owner[first],
        n=count,
        aux=low.kernels.index(NormKernel(f32=True)),
        src_tag=value.tag(first),
        src2_tag=stat.tag(0),
        src3=gains[first],
        src3_tag=tag(uid, first),
        dst_tag=out.tag(first),
    )
    low.where[View(value=node.outputs[0], start=0, width=node.inputs[0].width)] = (out, segments)


RULE = LoweringRule(
    op="rms_norm32", lower=lower_rms_norm32, wants=every(F32_LANES), handed=by_line, residual=True
)
