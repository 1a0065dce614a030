"""Lowering: the nodes of one block -> rows (tile operations and transfers) on the ranks of one group."""

from dataclasses import dataclass

import numpy as np

from compiler.errors import UnsupportedOpError
from compiler.graph.graph import Graph, Node, View, width
from compiler.lower.blocks import ModelBlock, input_lines
from compiler.lower.context import INPUT, Group, Lowering
from compiler.lower.host_lanes import lower_give, lower_take
from compiler.lower.layout import WHOLE, Deal, Demands, Lines, Segments, natural
from compiler.lower.rows import Kernels, RowBuilder, WeightArena
from compiler.lower.rules import RULES
from compiler.program.isa import F32_LANES
from compiler.route.route import Router
from fabric.chip import ChipSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What all blocks of a compilation share.

    better: whether the order of rows is improved once they are scheduled, which can take more room.
    capacity, cached: tokens of KV per stripe, and sequences, of the cache. deal: how the context of each KV
    head is dealt over chips, `run` tokens at a time. chunk: rows of each sequence in a step, appended: the
    most of them in any of the programs that share the KV. detours:
    whether large transfers may go round by chips that have no part in a block. host_slot: cycles of a word on
    a chip's host lane. by_rows: whether rows of products in contract parts may be dealt over ranks; by_layer:
    whether blocks of a layer are scheduled as one; narrow: whether latent attention runs on fewer chips than
    experts do. All can take more room. resident: tokens of a context that SRAM keeps, the last of a longer
    one; 0: all. slots: of a table of experts (`CompileOptions.most_slots`). cold: the share of
    the routed experts of a table that lie in DDR5.
    """

    graph: Graph
    demands: Demands
    chip: ChipSpec
    contexts: tuple[int, ...]
    capacity: int
    cached: int
    chunk: int
    run: int
    appended: int = 1
    deal: Deal = WHOLE
    detours: bool = True
    host_slot: int = 0
    by_rows: bool = True
    better: bool = True
    by_layer: bool = True
    narrow: bool = True
    resident: int = 0
    slots: int | None = None
    cold: float = 0.0

    @property
    def cp(self) -> int:
        """Chips that the context of each KV head is dealt over."""
        return self.deal.chips


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
        longest=max(plan.contexts),
        capacity=plan.capacity,
        cached=plan.cached,
        deal=plan.deal,
        run=plan.run,
        appended=plan.appended,
        detours=plan.detours,
        kernels=kernels,
        rows=RowBuilder(),
        weights=WeightArena(group.ranks),
        kv_words=np.zeros(group.keepers, np.int64),
        host_slot=plan.host_slot,
        resident=plan.resident,
        by_rows=plan.by_rows,
        slots=plan.slots,
        cold=plan.cold,
    )
    if block.wire:
        lower_take(low, block)
    elif block.source >= 0:
        _take_input(low, block)
    for node in block.nodes:
        rule = plan.demands.rule(node)
        if rule.joint is not None:
            together = [one for one in block.nodes if (one.op, one.inputs[0]) == (node.op, node.inputs[0])]
            if node is together[0]:
                rule.joint(low, together)
        elif rule.lower is not None:
            rule.lower(low, node)
        else:
            raise _no_rows(node)
    result = low.where[View(value=block.result, start=0, width=width(plan.graph.values[block.result]))][0]
    if block.wire:
        lower_give(low, block, result)
        return low, result
    need = np.zeros((max(group.targets) + 1, result.lines), bool)
    need[list(group.targets)] = group.wanted
    low.gather(result, need)
    return low, result


def _no_rows(node: Node) -> UnsupportedOpError:
    on_gpus = node.op in RULES
    return UnsupportedOpError(
        "lower",
        f"{node.path}: {node.op} ({node.source})",
        "only GPUs do it, where the model is divided" if on_gpus else "has no rows",
        "Use lpu afd --mode afd." if on_gpus else "Use another op.",
    )


def _take_input(low: Lowering, block: ModelBlock) -> None:
    source, ranks = block.source, low.group.ranks
    total = width(low.graph.values[source])
    owner, columns = natural(total, ranks)
    first = np.arange(len(owner))
    value = low.value("f32", owner, columns, first=first, count=np.ones_like(first), uid=INPUT)
    value.held[:ranks] = input_lines(low.demands, block, ranks, low.group.k_parts)
    if low.group.held is not None:
        value.held[:ranks] |= low.group.held
    segments = Segments(start=0, total=total, width=F32_LANES, first=first, lines=1)
    low.where[View(value=source, start=0, width=total)] = (value, segments)
