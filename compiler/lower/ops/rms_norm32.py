"""Lowering of rms_norm32: on every rank of the group, so that the residual sum after it is everywhere."""

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
    """All lines to all ranks, then RSTAT and NORM rows on each."""
    value, segments = low.segments(node.inputs[0], node)
    if len(segments) != value.lines:
        raise CompileError(
            "lower",
            f"{node.path}: rms_norm32",
            f"its input is {len(segments)} of {value.lines} lines",
            "Give it what one matmul returns.",
        )
    stat = whole_stat(low, node, value, np.ones(low.group.ranks, bool))
    ranks, lines = np.arange(low.group.ranks), np.arange(value.lines)
    uid = low.weight_uid()
    gains = low.gain(
        node.inputs[1].value, value.columns, np.repeat(ranks, value.lines), np.tile(lines, len(ranks)), uid
    )
    zero = np.zeros(1, np.int64)
    out = low.value("f32", value.owner, value.columns, first=zero, count=zero + value.lines)
    out.held[: low.group.ranks] = True
    low.rows.add(
        Op.NORM,
        rank=ranks,
        n=value.lines,
        aux=low.kernels.index(NormKernel(f32=True)),
        src_tag=value.tag(0),
        src2_tag=stat.tag(0),
        src3=gains[:: value.lines],
        src3_tag=tag(uid, 0),
        dst_tag=out.tag(0),
    )
    low.where[View(value=node.outputs[0], start=0, width=node.inputs[0].width)] = (out, segments)


RULE = LoweringRule(
    op="rms_norm32", lower=lower_rms_norm32, wants=every(F32_LANES), handed=by_line, residual=True
)
