"""Lowering: the nodes of one block -> rows (tile operations and transfers) on the ranks of one group."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from compiler.errors import UnsupportedOpError
from compiler.graph.graph import Graph, Node, View, width
from compiler.lower.attention import lower_attention
from compiler.lower.blocks import ModelBlock
from compiler.lower.context import Group, Lowering
from compiler.lower.host_lanes import lower_give, lower_take
from compiler.lower.layout import Demands, Lines, Segments, natural
from compiler.lower.matmul import lower_matmuls, matmul_views
from compiler.lower.needs import input_lines
from compiler.lower.rows import Kernels, RowBuilder, WeightArena
from compiler.lower.vector import (
    lower_add,
    lower_argmax,
    lower_embed,
    lower_glu,
    lower_rms_norm,
    lower_rope,
    lower_round16,
)
from compiler.program.isa import F32_LANES
from compiler.route.route import Router
from fabric.chip import ChipSpec

LOWER: dict[str, Callable[[Lowering, Node], None]] = {
    "embed": lower_embed,
    "rms_norm": lower_rms_norm,
    "rope": lower_rope,
    "round16": lower_round16,
    "attention": lower_attention,
    "glu": lower_glu,
    "add": lower_add,
    "argmax": lower_argmax,
}
ELSEWHERE = ("round8",)  # ops that GPUs alone do, beside the hops of a divided model


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all blocks of a compilation share.

    capacity, cached: tokens of KV per rank and head, and sequences, of the cache. cp: ranks that the context
    of each KV head is dealt over. chunk: rows of each sequence in a step. detours: whether large transfers
    may go round by chips that have no part in a block. host_slot: cycles of a word on a chip's host lane.
    """

    graph: Graph
    demands: Demands
    chip: ChipSpec
    contexts: tuple[int, ...]
    capacity: int
    cached: int
    chunk: int
    cp: int = 1
    detours: bool = True
    host_slot: int = 0


def lower(
    plan: Plan, block: ModelBlock, group: Group, router: Router, context: int, kernels: Kernels
) -> tuple[Lowering, Lines]:
    """The block's rows (in the Lowering), and the value that it hands on, sent to the group's targets.

    A hop takes its source from the host lanes and gives the value back to them. kernels: numbers the static
    attributes of the rows, whose `aux` they are.
    """
    low = Lowering(
        graph=plan.graph,
        demands=plan.demands,
        params={value: i for i, value in enumerate(block.params)},
        result=block.result,
        group=group,
        router=router,
        chip=plan.chip,
        context=context,
        capacity=plan.capacity,
        cached=plan.cached,
        cp=plan.cp,
        detours=plan.detours,
        kernels=kernels,
        rows=RowBuilder(),
        weights=WeightArena(group.ranks),
        kv_words=np.zeros(group.ranks, np.int64),
        host_slot=plan.host_slot,
    )
    if block.wire:
        lower_take(low, block)
    elif block.source >= 0:
        _take_input(low, block)
    groups = matmul_views(list(block.nodes))
    for node in block.nodes:
        if node.op == "matmul":
            if groups[node.inputs[0]][0] is node:
                lower_matmuls(low, groups[node.inputs[0]])
        elif node.op in LOWER:
            LOWER[node.op](low, node)
        else:
            raise UnsupportedOpError(
                "lower",
                f"{node.path}: {node.op} ({node.source})",
                "only GPUs do it, where the model is divided" if node.op in ELSEWHERE else "has no rows",
                "Use lpu afd --mode afd." if node.op in ELSEWHERE else "Use another op.",
            )
    result = low.where[View(value=block.result, start=0, width=width(plan.graph.values[block.result]))][0]
    if block.wire:
        lower_give(low, block, result)
        return low, result
    need = np.zeros((max(group.targets) + 1, result.lines), bool)
    need[list(group.targets)] = group.wanted
    low.gather(result, need)
    return low, result


def _take_input(low: Lowering, block: ModelBlock) -> None:
    source, ranks = block.source, low.group.ranks
    total = width(low.graph.values[source])
    owner, columns = natural(total, ranks)
    first = np.arange(len(owner))
    value = low.value("f32", owner, columns, first=first, count=np.ones_like(first), uid=0)
    value.held[:ranks] = input_lines(low.graph, low.demands, block, ranks, low.group.k_parts)
    segments = Segments(start=0, total=total, width=F32_LANES, first=first, lines=1)
    low.where[View(value=source, start=0, width=total)] = (value, segments)
