"""Lowering of glu: one row per strip of 160 columns, gate and up side by side on one rank."""

import numpy as np

from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.vector import GluKernel
from compiler.program.isa import F16_LANES, Op


def lower_glu(low: Lowering, node: Node) -> None:
    """GLU rows of two f32 lines each way in, one fp16 line out."""
    (gate, gates), (up, ups) = (low.segments(view, node) for view in node.inputs)
    owner = gate.owner[gates.first]
    total = node.inputs[0].width
    begin, real = gates.spans[:, :1], gates.spans[:, 1:]
    lane, line = np.arange(F16_LANES), np.arange(len(gates))
    columns = np.where(lane < real, begin + lane, -1).reshape(-1)
    out = low.value("f16", owner, columns, first=line, count=np.ones_like(line))
    low.rows.add(
        Op.GLU,
        rank=owner,
        n=2,
        aux=low.kernels.index(GluKernel(activation=node.attributes["activation"])),
        src_tag=gate.tag(gates.first),
        src2_tag=up.tag(ups.first),
        dst_tag=out.tag(line),
    )
    low.where[View(value=node.outputs[0], start=0, width=total)] = (out, None)


RULE = LoweringRule(op="glu", lower=lower_glu, wants=every(F16_LANES), keeps_columns=True)
