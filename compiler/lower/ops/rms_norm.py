"""Lowering of rms_norm: over all features, on every rank that multiplies the result; or per head."""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import by_segments
from compiler.lower.ops.tiles import by_tiles
from compiler.lower.rows import tag
from compiler.lower.rule import AS_RESULT, Handed, LoweringRule, Uses
from compiler.program.instructions.vector import HeadNormKernel, NormKernel, RstatKernel
from compiler.program.isa import F32_LANES, GAIN, Op, ceil_div


def is_per_head(uses: Uses, node: Node) -> bool:
    """Whether the norm runs over each head rather than over all features; a single head is told by use."""
    narrow = uses.graph.values[node.inputs[1].value].shape[0] < node.inputs[0].width
    return narrow or any(uses.rule(reader).by_head for reader, _ in uses.readers(node.outputs[0]))


def lower_rms_norm(low: Lowering, node: Node) -> None:
    """HNORM rows per head; RSTAT and NORM rows over all features."""
    if is_per_head(low.demands, node):
        _per_head(low, node)
    else:
        _over_all(low, node)


def _over_all(low: Lowering, node: Node) -> None:
    value, _ = low.lines(node.inputs[0], node)
    if value.dtype != "f32":
        raise CompileError(
            "lower", f"{node.path}: rms_norm", "its input is not f32", "Normalise the residual."
        )
    active = low.multipliers(node.outputs[0])
    ranks = np.flatnonzero(active)
    low.gather(value, np.repeat(active[:, None], value.lines, axis=1))
    width = node.inputs[0].width
    aux = low.kernels.index(RstatKernel(width=width, eps=node.attributes["eps"]))
    stat = low.value("stat", np.zeros(1, np.int64), first=np.zeros(1, np.int64), count=np.ones(1, np.int64))
    stat.held[: len(active), 0] = active
    low.rows.add(Op.RSTAT, rank=ranks, n=value.lines, aux=aux, src_tag=value.tag(0), dst_tag=stat.tag(0))
    by_tiles(low, node, value, Op.NORM, NormKernel(), GAIN, src2_tag=stat.tag(0))


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
    return AS_RESULT if is_per_head(uses, node) else None


def _handed(uses: Uses, node: Node) -> Handed | None:
    return None if is_per_head(uses, node) else Handed.WHOLE


RULE = LoweringRule(op="rms_norm", lower=lower_rms_norm, wants=_wants, handed=_handed)
