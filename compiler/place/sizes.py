"""Sizes: what each block takes of SRAM on each rank, by lowering one of each kind."""

from dataclasses import dataclass, replace
from math import isqrt

import numpy as np

from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock, kv_heads, layer_of
from compiler.lower.context import Group, Lowering
from compiler.lower.rope_table import angle_words
from compiler.lower.rows import Kernels
from compiler.place.stages import Room, Size
from compiler.route.route import Router
from compiler.schedule.template import residual_lines, template
from fabric.rack import Rack


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """The same blocks at another number of rows (a chunk of a prompt), which share chips and SRAM."""

    plan: Plan
    blocks: tuple[ModelBlock, ...]


def k_parts(layout: str, tp: int) -> int:
    """Into how many parts of K the matmuls of a group split."""
    if layout == "2d":
        return max(d for d in range(1, isqrt(tp) + 1) if tp % d == 0)
    return tp if layout == "row" else 1


def block_sizes(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    groups: tuple[tuple[int, ...], ...],
    layout: str,
    wider: int,
    companion: Companion | None = None,
    exact: bool = False,
) -> tuple[list[Size], Room]:
    """What each block takes of SRAM and on how many neighbouring groups; and the room there is.

    wider: the first and the last block (embedding and head) take at least so many groups. Hops take one.
    companion: blocks whose transients must have room there as well. exact: transients are found by scheduling
    each block, not estimated from above.
    """
    tp = len(groups[0])
    capacity = rack.chip.sram_words - angle_words(plan.graph)
    known: dict[str, Size] = {}
    for i, block in enumerate(blocks):
        span = wider if block in (blocks[0], blocks[-1]) else 1
        while block.kind not in known:
            chips = sum(groups[:span], ())
            after = sum(groups[span : 2 * span], ())
            size = _size(plan, block, rack, chips, after, layout, span)
            if exact and not block.wire:
                size = replace(size, transient=_allocated(plan, block, rack, chips, layout, after))
            if companion is not None:
                other = _allocated(companion.plan, companion.blocks[i], rack, chips, layout)
                size = replace(size, transient=max(size.transient, other))
            fits = int(size.words.max()) + size.transient <= capacity
            if fits or block.wire or span * 2 > len(groups):
                known[block.kind] = size
            span *= 2
    sizes = [replace(known[block.kind], name=block.name, layer=layer_of(block)) for block in blocks]
    words = capacity - max(size.transient for size in sizes)
    room = Room(rack=rack.name, groups=len(groups), tp=tp, words=words, capacity=rack.chip.sram_words)
    return sizes, replace(room, bad=_bad(rack, groups))


def _bad(rack: Rack, groups: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, int, int], ...]:
    """Group, rank and count of the bad words of chips."""
    if rack.damage is None or not rack.damage.bad:
        return ()
    at = {chip: (i, rank) for i, group in enumerate(groups) for rank, chip in enumerate(group)}
    return tuple((*at[w.chip], w.stop - w.first) for w in rack.damage.bad if w.chip in at)


def _allocated(
    plan: Plan,
    block: ModelBlock,
    rack: Rack,
    chips: tuple[int, ...],
    layout: str,
    after: tuple[int, ...] = (),
) -> int:
    """Transient words of the fullest rank, found by scheduling; after: chips it may hand on to as well."""
    ways = _ways(rack, chips, after, layout)
    return max(int(template(plan, block, *way, 0).transient_words[: len(chips)].max()) for way in ways)


def _ways(
    rack: Rack, chips: tuple[int, ...], after: tuple[int, ...], layout: str
) -> list[tuple[Group, Router]]:
    """A block that hands its result to its own chips, and one that hands it to as many others."""
    alone = _alone(layout, len(chips))
    away = replace(alone, targets=tuple(range(len(chips), 2 * len(chips))))
    other = [(away, Router(rack, chips + after))] if len(after) == len(chips) else []
    return [(alone, Router(rack, chips)), *other]


def _alone(layout: str, ranks: int) -> Group:
    """A group that hands its result to itself, all of it to all ranks."""
    return Group(
        ranks=ranks,
        k_parts=k_parts(layout, ranks),
        targets=tuple(range(ranks)),
        wanted=np.ones((ranks, 1), bool),
    )


def _size(
    plan: Plan,
    block: ModelBlock,
    rack: Rack,
    chips: tuple[int, ...],
    after: tuple[int, ...],
    layout: str,
    span: int,
) -> Size:
    """What a block takes, whether it hands its result to itself or to the chips `after`."""
    ranks, context = len(chips), max(plan.contexts)
    plan = replace(plan, detours=False)
    ways = _ways(rack, chips, () if block.wire else after, layout)
    lows = [lower(plan, block, group, router, context, Kernels())[0] for group, router in ways]
    held = max(_held(low, ranks) for low in lows)
    return Size(
        name=block.name,
        words=np.max([low.weights.words + low.kv_words for low in lows], axis=0),
        transient=(2 * residual_lines(plan.graph) + held) * plan.graph.batch,
        span=span,
        step=_together(plan, block, ranks),
    )


def _held(low: Lowering, ranks: int) -> int:
    """Lines that a rank holds of all values of a block, at most."""
    kept = [value for value in low.values if value.uid not in low.passing]
    return sum(int(value.held[:ranks].sum(axis=1).max()) for value in kept)


def _together(plan: Plan, block: ModelBlock, ranks: int) -> int:
    """How many neighbouring ranks a block's KV heads have each, where their contexts are dealt over them."""
    heads = kv_heads(plan.demands, block)
    return ranks // heads[0] if heads and plan.cp > 1 and ranks % heads[0] == 0 else 1
