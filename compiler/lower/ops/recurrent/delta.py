"""Lowering of delta: two rows for each line of channels, where it lies; its states are kept there.

Every rank with a line gets all queries and keys, and the numbers of all heads.
"""

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import in_natural_order
from compiler.lower.layout import natural
from compiler.lower.ops.recurrent.states import beside, kernel_of, regions, whole
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.recurrent import DeltaKernel, decayed_lines
from compiler.program.isa import F32_LANES, Op

RAW, QK, DECAY, STATE = 1, 2, 3, 4


def lower_delta(low: Lowering, node: Node) -> None:
    """DECAY and DELTA rows."""
    view, ranks = node.inputs[0], low.group.ranks
    value, cut = low.segments(view, node)
    kernel = DeltaKernel(
        **kernel_of(low, node, STATE),
        channels=view.width,
        heads=node.inputs[RAW].width // 2,
        groups=node.attributes["groups"],
    )
    owner, line = value.owner[cut.first], np.arange(len(cut))
    reads = np.isin(np.arange(ranks), owner)
    raw, both = whole(low, node, RAW, reads), whole(low, node, QK, reads)
    aux, size = low.kernels.index(kernel), decayed_lines(kernel)
    _, columns = natural(view.width, ranks)
    words, tags = beside(low, owner, np.ones_like(line), [(node.inputs[DECAY].value, columns)])
    decayed = low.value("f32", np.repeat(owner, size), first=line * size, count=np.full(len(line), size))
    low.rows.add(
        Op.DECAY,
        rank=owner,
        n=line,
        aux=aux,
        src_tag=value.tag(cut.first),
        src2_tag=raw.tag(0),
        src3=words,
        src3_tag=tags,
        dst_tag=decayed.tag(line * size),
    )
    state = regions(low, owner, np.full(len(line), kernel.kept * kernel.cached))
    out = low.value("f32", owner, columns, first=line, count=np.ones_like(line))
    low.rows.add(
        Op.DELTA,
        rank=owner,
        n=line,
        aux=aux,
        src_tag=decayed.tag(line * size),
        src2_tag=both.tag(0),
        src3=state,
        src3_tag=tag(low.weight_uid(), line),
        dst_tag=out.tag(line),
    )
    in_natural_order(low, node.outputs[0], out, view.width)


RULE = LoweringRule(op="delta", lower=lower_delta, wants=every(F32_LANES))
