"""Lowering of delta: two rows for each line of channels, where it lies; its states are kept there.

Every rank with a line gets all queries and keys, and the numbers of all heads.
"""

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.ops.recurrent.states import kernel_of, two_rows, whole
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.recurrent import DeltaKernel, decayed_lines
from compiler.program.isa import F32_LANES, Op

RAW, QK, DECAY, STATE = 1, 2, 3, 4


def lower_delta(low: Lowering, node: Node) -> None:
    """DECAY and DELTA rows."""
    view = node.inputs[0]
    value, cut = low.segments(view, node)
    kernel = DeltaKernel(
        **kernel_of(low, node, STATE),
        channels=view.width,
        heads=node.inputs[RAW].width // 2,
        groups=node.attributes["groups"],
    )
    reads = np.isin(np.arange(low.group.ranks), value.owner[cut.first])
    raw, both = whole(low, node, RAW, reads), whole(low, node, QK, reads)
    decay, ops = node.inputs[DECAY].value, (Op.DECAY, Op.DELTA)
    size = decayed_lines(kernel)
    two_rows(low, node, kernel, ops, size, raw.tag(0), both, lambda columns: [(decay, columns)])


RULE = LoweringRule(op="delta", lower=lower_delta, wants=every(F32_LANES))
