"""Lowering of rms_norm: over all features, on every rank that multiplies the result; or per head.

A norm over all heads of an attention together is over all features, and its result is cut into heads.
"""

import numpy as np
from jaxtyping import Bool

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_segments
from compiler.lower.layout import Lines, Segments
from compiler.lower.ops.tiles import by_tiles
from compiler.lower.rows import tag
from compiler.lower.rule import AS_RESULT, Handed, LoweringRule, Uses
from compiler.program.instructions.norms import HeadNormKernel, NormKernel, RstatKernel
from compiler.program.instructions.vector import MulKernel
from compiler.program.isa import F32_LANES, GAIN, Op, ceil_div


def is_per_head(uses: Uses, node: Node) -> bool:
    """Whether the norm runs over each head rather than over all features; a single head is told by use."""
    narrow = uses.graph.values[node.inputs[1].value].shape[0] < node.inputs[0].width
    return narrow or (_is_cut(uses, node) and len(uses.graph.values[node.outputs[0]].shape) > 2)


def _is_cut(uses: Uses, node: Node) -> bool:
    return any(uses.rule(reader).by_head for reader, _ in uses.readers(node.outputs[0]))


def lower_rms_norm(low: Lowering, node: Node) -> None:
    """HNORM rows per head; RSTAT and NORM rows over all features."""
    if is_per_head(low.demands, node):
        _per_head(low, node)
    elif _is_cut(low.demands, node):
        _over_heads(low, node)
    else:
        _over_all(low, node)


def _over_all(low: Lowering, node: Node) -> None:
    value, _ = low.lines(node.inputs[0], node)
    if value.dtype != "f32":
        raise CompileError(
            "lower", f"{node.path}: rms_norm", "its input is not f32", "Normalise the residual."
        )
    stat = whole_stat(low, node, value, low.multipliers(node.outputs[0]))
    by_tiles(low, node, value, Op.NORM, NormKernel(), GAIN, src2_tag=stat.tag(0))


def whole_stat(
    low: Lowering, node: Node, value: Lines, active: Bool[np.ndarray, " ranks"], each: int = 0
) -> Lines:
    """An RSTAT row on every active rank, to which all lines are sent; each: columns of a piece."""
    ranks = np.flatnonzero(active)
    low.gather(value, np.repeat(active[:, None], value.lines, axis=1))
    width = node.inputs[0].width
    aux = low.kernels.index(RstatKernel(width=width, eps=node.attributes["eps"], each=each))
    stat = low.value("stat", np.zeros(1, np.int64), first=np.zeros(1, np.int64), count=np.ones(1, np.int64))
    stat.held[: len(active), 0] = active
    low.rows.add(Op.RSTAT, rank=ranks, n=value.lines, aux=aux, src_tag=value.tag(0), dst_tag=stat.tag(0))
    return stat


def _over_heads(low: Lowering, node: Node) -> None:
    """The segments side by side (times 1, which changes nothing), the statistic of all, then each normed."""
    view = node.inputs[0]
    value, segments = low.segments(view, node)
    count, lines = len(segments), segments.lines
    source = (segments.first[:, None] + np.arange(lines)).reshape(-1)
    columns = value.columns.reshape(-1, F32_LANES)[source].reshape(-1)
    first, owner = np.arange(count) * lines, value.owner[segments.first]
    beside = low.value("f32", np.repeat(owner, lines), columns, first=first, count=np.full(count, lines))
    low.rows.add(
        Op.MUL,
        rank=owner,
        n=lines,
        aux=low.kernels.index(MulKernel(factor=1.0)),
        src_tag=value.tag(segments.first),
        dst_tag=beside.tag(first),
    )
    active = np.zeros(low.group.ranks, bool)
    active[owner] = True
    stat = whole_stat(low, node, beside, active, segments.width)
    whole = Segments(start=0, total=view.width, width=segments.width, first=first, lines=lines)
    low.where[view] = (beside, whole)  # by_segments reads it there
    cut = by_segments(low, node)
    low.where[view] = (value, segments)
    uid, rows = low.weight_uid(), np.arange(beside.lines)
    features = np.where(columns >= 0, columns - view.start, -1)
    gains = low.gain(node.inputs[1].value, features, beside.owner, rows, uid)
    cut.add_rows(
        low,
        Op.NORM,
        NormKernel(),
        n=lines,
        src2_tag=stat.tag(0),
        src3=gains[first],
        src3_tag=tag(uid, first),
    )


def _per_head(low: Lowering, node: Node) -> None:
    cut = by_segments(low, node)
    gain = node.inputs[1].value
    head_dim = low.graph.values[gain].shape[0]
    words = int(ceil_div(head_dim, F32_LANES))
    columns = np.full(words * F32_LANES, -1)
    columns[:head_dim] = np.arange(head_dim)
    uid = low.weight_uid()
    ranks = np.unique(cut.owner)
    line = np.tile(np.arange(words), len(ranks))
    gains = low.gain(gain, columns, np.repeat(ranks, words), line, uid)
    cut.add_rows(
        low,
        Op.HNORM,
        HeadNormKernel(head_dim=head_dim, eps=node.attributes["eps"]),
        n=cut.segments.width // head_dim,
        src3=gains[::words][np.searchsorted(ranks, cut.owner)],
        src3_tag=tag(uid, 0),
    )


def _wants(uses: Uses, node: Node, operand: int) -> int | None:
    return AS_RESULT if operand == 0 and _is_cut(uses, node) else None


def _handed(uses: Uses, node: Node) -> Handed | None:
    return None if is_per_head(uses, node) or _is_cut(uses, node) else Handed.WHOLE


RULE = LoweringRule(op="rms_norm", lower=lower_rms_norm, wants=_wants, handed=_handed)
