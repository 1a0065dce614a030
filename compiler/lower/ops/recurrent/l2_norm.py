"""Lowering of l2_norm: each rank that reads it takes all heads over their lengths, so none is sent twice."""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import in_natural_order
from compiler.lower.layout import natural
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.norms import HeadNormKernel
from compiler.program.isa import F32_LANES, Op


def lower_l2_norm(low: Lowering, node: Node) -> None:
    """All lines to every rank that has lines of what is made of it, and an HNORM row there."""
    view, ranks = node.inputs[0], low.group.ranks
    value, segments = low.segments(view, node)
    _, columns = natural(view.width, ranks)
    if len(segments) != value.lines or not np.array_equal(value.columns, columns):
        raise CompileError(
            "lower",
            f"{node.path}: l2_norm ({node.source})",
            f"its input is {len(segments)} of {value.lines} lines",
            "Let a conv or a multiply by 1 make it.",
        )
    readers = [reader.inputs[0].width for reader, _ in low.demands.readers(node.outputs[0])]
    rank = np.unique(np.concatenate([natural(width, ranks)[0] for width in readers]))
    need = np.zeros((ranks, value.lines), bool)
    need[rank] = True
    low.gather(value, need)
    head_dim = low.graph.values[node.outputs[0]].shape[-1]
    kernel = HeadNormKernel(head_dim=head_dim, eps=node.attributes["eps"], f32=True, length=True)
    first, count = np.zeros(1, np.int64), np.full(1, value.lines)
    out = low.value("f32", np.full(value.lines, rank[0]), columns, first=first, count=count)
    out.held[:ranks] = need
    low.rows.add(
        Op.HNORM,
        rank=rank,
        n=view.width // head_dim,
        aux=low.kernels.index(kernel),
        src_tag=value.tag(0),
        dst_tag=out.tag(0),
    )
    in_natural_order(low, node.outputs[0], out, view.width)


RULE = LoweringRule(op="l2_norm", lower=lower_l2_norm, wants=every(F32_LANES))
