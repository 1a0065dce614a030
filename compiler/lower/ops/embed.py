"""Lowering of embed: each rank that owns lines gathers its columns of the row of a token or position."""

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import in_natural_order
from compiler.lower.layout import natural
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule
from compiler.program.instructions.vector import EmbedKernel
from compiler.program.isa import F32_LANES, TABLE, Op, ceil_div


def lower_embed(low: Lowering, node: Node) -> None:
    """EMBED rows and the columns of the table that each rank holds."""
    table, out = node.inputs[0].value, node.outputs[0]
    total = low.graph.values[out].shape[-1]
    vocab = low.graph.values[table].shape[0]
    positions = low.graph.values[node.inputs[1].value].kind == "position"
    owner, columns = natural(total, low.group.ranks)
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    count = np.diff(np.append(first, len(owner)))
    value = low.value("f32", owner, columns, first=first, count=count)
    slot = low.slot(table, None, columns)
    uid = low.weight_uid()
    for line, n in zip(first.tolist(), count.tolist(), strict=True):
        stride = int(ceil_div(n, 2))
        address = low.weights.load(
            owner[line],
            vocab * stride,
            kind=TABLE,
            tensor=slot,
            k0=0,
            n0=line * F32_LANES,
            lines=n,
            tag=tag(uid, line),
        )
        low.rows.add(
            Op.EMBED,
            rank=owner[line],
            n=n,
            aux=low.kernels.index(EmbedKernel(vocab=vocab, stride=stride, positions=positions)),
            src=address,
            src_tag=tag(uid, line),
            dst_tag=value.tag(line),
        )
    in_natural_order(low, out, value, total)


RULE = LoweringRule(op="embed", lower=lower_embed, residual=True)
