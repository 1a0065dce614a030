"""Lowering of ssm: two rows for each line of channels, where it lies; its states are kept there.

Every rank with a line gets B and C, and the time steps unless each channel has its own.
"""

from functools import partial

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.ops.recurrent.states import kernel_of, two_rows, whole
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.recurrent import SsmKernel, stepped_lines
from compiler.program.isa import F32_LANES, Op

BC, DECAY, THROUGH, STATE = 2, 3, 4, 5


def lower_ssm(low: Lowering, node: Node) -> None:
    """STEP and SSM rows."""
    value, cut = low.segments(node.inputs[0], node)
    kernel, owner = _kernel(low, node), value.owner[cut.first]
    reads = np.isin(np.arange(low.group.ranks), owner)
    raw = _steps(low, node, kernel, owner, reads)
    both, ops = whole(low, node, BC, reads), (Op.STEP, Op.SSM)
    two_rows(low, node, kernel, ops, stepped_lines(kernel), raw, both, partial(_vectors, node, kernel))


def _kernel(low: Lowering, node: Node) -> SsmKernel:
    steps, channels = node.inputs[1].width, node.inputs[0].width
    return SsmKernel(
        **kernel_of(low, node, STATE),
        channels=channels,
        steps=steps,
        groups=node.attributes["groups"],
        decays=low.graph.values[node.inputs[DECAY].value].shape[0] // channels,
        apart=steps == channels,
        low=node.attributes["low"],
        high=node.attributes["high"],
    )


def _steps(
    low: Lowering, node: Node, kernel: SsmKernel, owner: np.ndarray, reads: np.ndarray
) -> np.ndarray | int:
    """Tags of the raw time steps that each row takes, where it lies."""
    if not kernel.apart:
        return whole(low, node, 1, reads).tag(0)
    raw, cut = low.segments(node.inputs[1], node)
    need = np.zeros((low.group.ranks, raw.lines), bool)
    need[owner, cut.first] = True
    low.gather(raw, need)
    return raw.tag(cut.first)


def _vectors(node: Node, kernel: SsmKernel, columns: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """D and the decays of every padded lane; of decays for each state, one state after another."""
    decay, through = (node.inputs[which].value for which in (DECAY, THROUGH))
    out = [(through, columns)]
    for state in range(kernel.decays):
        out.append((decay, np.where(columns >= 0, columns * kernel.decays + state, -1)))
    return out


RULE = LoweringRule(op="ssm", lower=lower_ssm, wants=every(F32_LANES))
