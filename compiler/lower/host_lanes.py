"""Lowering of host lanes: a hop takes its input from them line by line and gives its result back.

Each line is taken once, by a chip that multiplies it, and goes on to the others over C2C: a word takes
longer on a host lane than on the lanes of a link (facts/afd.md section 3.1).
"""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import View, width
from compiler.lower.blocks import ModelBlock
from compiler.lower.context import Group, Lowering
from compiler.lower.layout import LANES, Lines
from compiler.program.instructions.host import GiveKernel, TakeKernel, Wire
from compiler.program.isa import F16_LANES, Op, ceil_div

WIRE: dict[str, Wire] = {"f32": "f32", "f16": "fp16"}  # of a result, by its layout


def lower_take(low: Lowering, block: ModelBlock) -> None:
    """TAKE rows for the source: two lines each where they fill one word on the wire (fp8), else one."""
    assert block.wire is not None
    total = width(low.graph.values[block.source])
    lines = int(ceil_div(total, F16_LANES))
    first = np.arange(0, lines, 2 if block.wire == "fp8" else 1)
    count = np.diff(np.append(first, lines))
    owner = _takers(low.group, first, lines)
    value = low.value("f16", np.repeat(owner, count), _natural(total, F16_LANES), first=first, count=count)
    low.rows.add(
        Op.TAKE,
        rank=owner,
        n=count,
        aux=low.kernels.index(TakeKernel(wire=block.wire, host_slot=low.host_slot)),
        src3=first,
        dst_tag=value.tag(first),
    )
    low.where[View(value=block.source, start=0, width=total)] = (value, None)


def _takers(group: Group, first: np.ndarray, lines: int) -> np.ndarray:
    """The rank that takes the lines from each of `first` on: in turn among those of their part of K."""
    begin, _ = group.k_part(int(ceil_div(lines, 2)))
    part = np.searchsorted(begin, first // 2, side="right") - 1
    within = np.arange(len(first)) - np.searchsorted(part, part)
    return part + within % (group.ranks // group.k_parts) * group.k_parts


def lower_give(low: Lowering, block: ModelBlock, result: Lines) -> None:
    """GIVE rows for the result: every owner what it computed, in the lines of the answer."""
    total = width(low.graph.values[block.result])
    if not np.array_equal(result.columns, _natural(total, LANES[result.dtype])):
        raise CompileError(
            "lower",
            f"hop {block.name}",
            f"the {total} columns of its result do not lie in order on the {low.group.ranks} ranks",
            "End it in one matmul that is read whole.",
        )
    low.rows.add(
        Op.GIVE,
        rank=result.owner[result.first],
        n=result.count,
        aux=low.kernels.index(GiveKernel(wire=WIRE[result.dtype], host_slot=low.host_slot)),
        src_tag=result.tag(result.first),
        src3=result.first,
    )


def _natural(total: int, lanes: int) -> np.ndarray:
    """The column of each lane of lines in order, -1 beyond the last."""
    columns = np.arange(int(ceil_div(total, lanes)) * lanes)
    return np.where(columns < total, columns, -1)
