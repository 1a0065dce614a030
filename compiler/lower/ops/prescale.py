"""Lowering of prescale and rms_stat: the halves of a norm, on every rank that multiplies by what follows.

The lines of a vector are scaled as they come; their statistic meets the products when those are written back.
"""

import numpy as np

from compiler.errors import CompileError
from compiler.graph.graph import Node, View
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines
from compiler.lower.ops.tiles import by_tiles
from compiler.lower.rows import tag
from compiler.lower.rule import Handed, LoweringRule
from compiler.program.instructions.norms import PrescaleKernel, RstatKernel
from compiler.program.isa import FACTOR, SHIFTED, Op


def lower_prescale(low: Lowering, node: Node) -> None:
    """PRE rows, a tile of input rows each."""
    value = _taken(low, node)
    by_tiles(low, node, value, Op.PRE, PrescaleKernel(), SHIFTED)


def lower_rms_stat(low: Lowering, node: Node) -> None:
    """An RSTAT row on every rank that applies the statistic."""
    value, active = _taken(low, node), low.multipliers(node.outputs[0])
    ranks = np.flatnonzero(active)
    kernel = RstatKernel(width=node.inputs[0].width, eps=node.attributes["eps"], shifted=True)
    uid = low.weight_uid()
    factor = low.weights.load(
        ranks,
        1,
        kind=FACTOR,
        tensor=low.slot(node.inputs[1].value, None, None),
        k0=0,
        n0=0,
        lines=1,
        tag=tag(uid, 0),
    )
    stat = low.value("stat", np.zeros(1, np.int64), first=np.zeros(1, np.int64), count=np.ones(1, np.int64))
    stat.held[: len(active), 0] = active
    low.rows.add(
        Op.RSTAT,
        rank=ranks,
        n=value.lines,
        aux=low.kernels.index(kernel),
        src_tag=value.tag(0),
        src3=factor,
        src3_tag=tag(uid, 0),
        dst_tag=stat.tag(0),
    )
    low.where[View(value=node.outputs[0], start=0, width=1)] = (stat, None)


def _taken(low: Lowering, node: Node) -> Lines:
    """The operand, all of it on every rank that multiplies."""
    value, _ = low.lines(node.inputs[0], node)
    if value.dtype != "f32":
        raise CompileError(
            "lower", f"{node.path}: {node.op}", "its input is not f32", "Normalise the residual."
        )
    active = low.multipliers(node.outputs[0])
    low.gather(value, np.repeat(active[:, None], value.lines, axis=1))
    return value


PRESCALE = LoweringRule(op="prescale", lower=lower_prescale, handed=lambda uses, node: Handed.WHOLE)
RMS_STAT = LoweringRule(op="rms_stat", lower=lower_rms_stat, handed=lambda uses, node: Handed.WHOLE)
