"""Lowering of rms_norm32: each rank norms the lines that it owns, by the statistic of all.

A norm by heads, which may cross lines, is of all of them on one rank: that of the first line.
"""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.elementwise import in_natural_order, require_f32
from compiler.lower.layout import natural
from compiler.lower.ops.rms_norm import whole_stat
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, by_line, every
from compiler.program.instructions.norms import HeadNormKernel, NormKernel, gain_words
from compiler.program.isa import F32_LANES, Op


def lower_rms_norm32(low: Lowering, node: Node) -> None:
    """All lines to every rank that owns some, an RSTAT row there, and a NORM row for each run of its own."""
    require_f32(low, node)
    head_dim = low.graph.values[node.outputs[0]].shape[-1]
    if head_dim < node.inputs[0].width:
        _by_head(low, node, head_dim)
        return
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


def _by_head(low: Lowering, node: Node, head_dim: int) -> None:
    """One HNORM row."""
    view = node.inputs[0]
    value, segments = low.segments(view, node)
    _, columns = natural(view.width, low.group.ranks)
    if len(segments) != value.lines or not np.array_equal(value.columns, columns):
        raise CompileError(
            "lower",
            f"{node.path}: rms_norm32 ({node.source})",
            f"its input is {len(segments)} of {value.lines} lines",
            "Let a multiply by 1 make it.",
        )
    rank, lines, gain = int(value.owner[0]), np.arange(value.lines), node.inputs[1].value
    need = np.zeros((low.group.ranks, value.lines), bool)
    need[rank] = True
    low.gather(value, need)
    own = low.graph.values[gain].shape[0] > head_dim
    kernel = HeadNormKernel(head_dim=head_dim, eps=node.attributes["eps"], f32=True, own=own)
    heads, uid = view.width // head_dim, low.weight_uid()
    words = int(gain_words(heads, kernel))
    lanes = np.arange(words * F32_LANES)
    beside = np.where(lanes < (view.width if own else head_dim), lanes, -1)
    gains = low.gain(gain, beside, np.full(words, rank), np.arange(words), uid)
    first, count = np.zeros(1, np.int64), np.full(1, value.lines)
    out = low.value("f32", np.full(value.lines, rank), columns, first=first, count=count)
    low.rows.add(
        Op.HNORM,
        rank=np.full(1, rank),
        n=heads,
        aux=low.kernels.index(kernel),
        src_tag=value.tag(0),
        src3=gains[:1],
        src3_tag=tag(uid, lines[:1]),
        dst_tag=out.tag(first),
    )
    in_natural_order(low, node.outputs[0], out, view.width)


RULE = LoweringRule(
    op="rms_norm32", lower=lower_rms_norm32, wants=every(F32_LANES), handed=by_line, residual=True
)
