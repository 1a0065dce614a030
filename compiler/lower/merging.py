"""How the nodes of a context are merged: level by level, as far as that is sooner than all at once."""

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import Op, ceil_div
from compiler.timing import timing
from fabric.chip import ChipSpec

FAN = 8  # nodes that NODE merges at a time: a power of two

Level = tuple[int, int]
"""Blocks in a node, and how many such nodes are merged into one."""


def levels(kernel: AttentionKernel, chip: ChipSpec, rows: int) -> list[Level]:
    """Every level of the tree but the last, which AOUT merges.

    Up to a run nodes lie on one chip; the nodes of runs are merged by the head's owner.
    """
    out: list[Level] = []
    run = kernel.run // kernel.block if kernel.stripes > 1 else 1
    while node_size(out) < run:
        out.append((node_size(out), min(FAN, run // node_size(out))))
    while not at_once(kernel, left := int(ceil_div(kernel.chunks, node_size(out))), chip, rows):
        out.append((node_size(out), _fan(kernel, left, chip, rows)))
    return out


def node_size(found: list[Level]) -> int:
    """Blocks in a node that levels have made."""
    return found[-1][0] * found[-1][1] if found else 1


def at_once(kernel: AttentionKernel, nodes: int, chip: ChipSpec, rows: int) -> bool:
    """Whether AOUT alone merges this many nodes: a few, or as soon as NODE and AOUT one after the other."""
    if nodes <= FAN:
        return True
    return _cycles(Op.AOUT, nodes, kernel, chip, rows) <= _in_two(FAN, kernel, nodes, chip, rows)


def _fan(kernel: AttentionKernel, nodes: int, chip: ChipSpec, rows: int) -> int:
    """Nodes that NODE merges at a time: of the numbers that leave few to AOUT that with the shortest way."""
    few = [fan for fan in (FAN, FAN // 2, FAN // 4) if ceil_div(nodes, fan) <= FAN]
    return min(few, key=lambda fan: _in_two(fan, kernel, nodes, chip, rows), default=FAN)


def _in_two(fan: int, kernel: AttentionKernel, nodes: int, chip: ChipSpec, rows: int) -> int:
    """Cycles of NODE and AOUT one after the other."""
    left = int(ceil_div(nodes, fan))
    return _cycles(Op.NODE, fan, kernel, chip, rows) + _cycles(Op.AOUT, left, kernel, chip, rows)


def _cycles(op: Op, nodes: int, kernel: AttentionKernel, chip: ChipSpec, rows: int) -> int:
    return int(timing(op, nodes, kernel, chip, rows)[1])
