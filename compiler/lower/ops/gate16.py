"""Lowering of gate16: where the heads lie that are gated, with the gates of each beside them."""

import numpy as np

from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.rule import LoweringRule, Uses
from compiler.program.instructions.recurrent import OpenKernel
from compiler.program.isa import Op


def lower_gate16(low: Lowering, node: Node) -> None:
    """A row for the query heads of each KV head."""
    (x, heads), (z, gates) = (low.segments(view, node) for view in node.inputs)
    owner = x.owner[heads.first]
    need = np.zeros((low.group.ranks, z.lines), bool)
    for line in range(gates.lines):
        need[owner, gates.first + line] = True
    low.gather(z, need)
    out = low.value("f16", x.owner.copy(), x.columns, first=x.first, count=x.count)
    low.rows.add(
        Op.GATE16,
        rank=owner,
        n=gates.lines,
        aux=low.kernels.index(OpenKernel()),
        src_tag=x.tag(heads.first),
        src2_tag=z.tag(gates.first),
        dst_tag=out.tag(heads.first),
    )
    low.where[View(value=node.outputs[0], start=0, width=node.inputs[0].width)] = (out, heads)


def _wants(uses: Uses, node: Node, operand: int) -> int | None:
    """Gates are cut as the queries are whose heads they are of."""
    maker = uses.maker(node.inputs[0].value)
    return uses.rule(maker).wants(uses, maker, 0) if operand and maker is not None else None


RULE = LoweringRule(op="gate16", lower=lower_gate16, wants=_wants)
