"""Lowering of ssm: two rows for each line of channels, where it lies; its states are kept there.

Every rank with a line gets B and C, and the time steps unless each channel has its own.
"""

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.context import Lowering
from compiler.lower.elementwise import in_natural_order
from compiler.lower.layout import natural
from compiler.lower.ops.recurrent.states import beside, kernel_of, regions, whole
from compiler.lower.rows import tag
from compiler.lower.rule import LoweringRule, every
from compiler.program.instructions.recurrent import SsmKernel, stepped_lines
from compiler.program.isa import F32_LANES, Op

BC, DECAY, THROUGH, STATE = 2, 3, 4, 5


def lower_ssm(low: Lowering, node: Node) -> None:
    """STEP and SSM rows."""
    view, ranks = node.inputs[0], low.group.ranks
    value, cut = low.segments(view, node)
    kernel = _kernel(low, node)
    owner, line = value.owner[cut.first], np.arange(len(cut))
    reads = np.isin(np.arange(ranks), owner)
    raw = _steps(low, node, kernel, owner, reads)
    both = whole(low, node, BC, reads)
    aux, size = low.kernels.index(kernel), stepped_lines(kernel)
    _, columns = natural(view.width, ranks)
    words, tags = beside(low, owner, np.ones_like(line), _vectors(node, kernel, columns))
    stepped = low.value("f32", np.repeat(owner, size), first=line * size, count=np.full(len(line), size))
    low.rows.add(
        Op.STEP,
        rank=owner,
        n=line,
        aux=aux,
        src_tag=value.tag(cut.first),
        src2_tag=raw,
        src3=words,
        src3_tag=tags,
        dst_tag=stepped.tag(line * size),
    )
    state = regions(low, owner, np.full(len(line), kernel.kept * kernel.cached))
    out = low.value("f32", owner, columns, first=line, count=np.ones_like(line))
    low.rows.add(
        Op.SSM,
        rank=owner,
        n=line,
        aux=aux,
        src_tag=stepped.tag(line * size),
        src2_tag=both.tag(0),
        src3=state,
        src3_tag=tag(low.weight_uid(), line),
        dst_tag=out.tag(line),
    )
    in_natural_order(low, node.outputs[0], out, view.width)


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
