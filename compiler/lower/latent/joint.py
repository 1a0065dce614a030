"""Operands of one node as one value: on each rank, run by run of its heads, one operand after the other."""

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines
from compiler.program.isa import F16_LANES, ceil_div


def joined(low: Lowering, node: Node, owner: np.ndarray) -> tuple[Lines, np.ndarray] | None:
    """(the value that the result of a node is part of, first line of each segment); None if of none.

    owner: rank of each segment, equally many of each.
    """
    readers = low.demands.readers(node.outputs[0])
    if len(readers) != 1:
        return None
    reader, operand = readers[0]
    rule = low.demands.rule(reader)
    if operand not in rule.joined:
        return None
    wants = [rule.wants(low.demands, reader, one) or 0 for one in rule.joined]
    sizes = [int(ceil_div(columns, F16_LANES)) for columns in wants]
    count, ranks = len(owner), np.unique(owner)
    if rule.runs is not None:
        ranks = np.repeat(ranks, rule.runs(low, reader, count // len(ranks)))
    group = count // len(ranks)
    if reader.index not in low.joints:
        lines = np.tile(np.repeat(sizes, group), len(ranks))
        held = np.repeat(np.repeat(ranks, group * len(sizes)), lines)
        low.joints[reader.index] = low.value("f16", held, first=np.cumsum(lines) - lines, count=lines)
    at = rule.joined.index(operand)
    head = np.arange(count)
    first = head // group * group * sum(sizes) + group * sum(sizes[:at]) + head % group * sizes[at]
    return low.joints[reader.index], first
