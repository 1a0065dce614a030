"""Rows that make the fp16 input of products from a whole f32 value, a tile of 320 columns each."""

from typing import Any

import numpy as np

from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines
from compiler.lower.rows import tag
from compiler.program.isa import F16_LANES, Kernel, ceil_div
from compiler.program.ranges import ramp


def by_tiles(
    low: Lowering, node: Node, value: Lines, op: int, kernel: Kernel, gain: int | None, **fields: Any
) -> None:
    """Rows of two fp16 lines from four f32 lines, with the gain words beside them in `src3`.

    The gain is the node's second operand, preloaded as that kind, or there is none; `value` lies on every
    rank that multiplies the result, and each makes the tiles that it multiplies.
    """
    lines = int(ceil_div(value.lines, 2))
    columns = np.full(lines * F16_LANES, -1)
    columns[: len(value.columns)] = value.columns
    first = np.arange(0, lines, 2)
    out = low.value("f16", np.full(lines, -1), columns, first=first, count=np.minimum(2, lines - first))
    need = low.input_lines(node.outputs[0], lines)
    out.held[: low.group.ranks] = need
    rank, tile = np.nonzero(need[:, ::2])
    n = np.minimum(4, value.lines - 4 * tile)
    if gain is not None:
        uid = low.weight_uid()
        starts = np.cumsum(n) - n
        line = np.repeat(4 * tile, n) + ramp(n)
        gains = low.gain(node.inputs[1].value, value.columns, np.repeat(rank, n), line, uid, gain)
        fields |= {"src3": gains[starts], "src3_tag": tag(uid, 4 * tile)}
    low.rows.add(
        op,
        rank=rank,
        n=n,
        aux=low.kernels.index(kernel),
        src_tag=value.tag(4 * tile),
        dst_tag=out.tag(2 * tile),
        **fields,
    )
    low.where[View(value=node.outputs[0], start=0, width=node.inputs[0].width)] = (out, None)
