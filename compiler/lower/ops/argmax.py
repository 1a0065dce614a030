"""Lowering of argmax: each rank over its own vocabulary lines, then the first rank over the ranks."""

import numpy as np

from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.vector import ArgmaxKernel, ArgredKernel
from compiler.program.isa import F32_LANES, Op


def lower_argmax(low: Lowering, node: Node) -> None:
    """ARGMAX rows, their results sent to rank 0, ARGRED there."""
    logits, _ = low.segments(node.inputs[0], node)
    owner = logits.owner
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    n = np.diff(np.append(first, logits.lines))
    line = np.arange(len(first))
    best = low.value("stat", owner[first], first=line, count=np.ones_like(line))
    low.rows.add(
        Op.ARGMAX,
        rank=owner[first],
        n=n,
        aux=low.kernels.index(ArgmaxKernel(vocab=node.inputs[0].width)),
        src_tag=logits.tag(first),
        src3=first,
        dst_tag=best.tag(line),
    )
    need = np.zeros((low.group.ranks, best.lines), bool)
    need[0] = True
    low.gather(best, need)
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    token = low.value("stat", zero, first=zero, count=one)
    low.rows.add(
        Op.ARGRED,
        rank=0,
        n=best.lines,
        aux=low.kernels.index(ArgredKernel()),
        src_tag=best.tag(0),
        dst_tag=token.tag(0),
    )
    low.where[View(value=node.outputs[0], start=0, width=1)] = (token, None)
    low.keep += [logits.uid, token.uid]


RULE = LoweringRule(op="argmax", lower=lower_argmax, wants=every(F32_LANES), picks_token=True)
