"""Sizes: what each block takes of SRAM on each rank, by lowering one of each kind."""

import functools
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np

from compiler.errors import CapacityError
from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock, kv_heads, layer_of
from compiler.lower.context import Group, Lowering
from compiler.lower.layout import Deal
from compiler.lower.rope_table import angle_words
from compiler.lower.rows import Kernels
from compiler.place.stages import Room, Size
from compiler.place.stripes import Beside, alone, missing, neighbours, ranked, undealt
from compiler.route.route import Router
from compiler.schedule.template import residual_lines, template
from fabric.rack import Rack

Sizes = dict[tuple[str, int, Deal | None, bool], Size]
"""By kind of block, groups that it runs on, how contexts are dealt where it has any, and whether exact."""


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
    seen: Sizes | None = None,
) -> tuple[list[Size], Room]:
    """What each block takes of SRAM and on how many neighbouring groups; and the room there is.

    wider: the first and the last block (embedding and head) take at least this many groups. Hops take one.
    companion: blocks whose transients must have room there as well. exact: transients are found by scheduling
    each block, not estimated from above. seen: what blocks of a kind take on this many groups, by
    other calls for the same groups and a plan that differs in its deal at most.
    """
    seen = {} if seen is None else seen
    tp = len(groups[0])
    capacity = rack.chip.sram_words - angle_words(plan.graph)
    known: dict[str, Size] = {}

    @functools.cache
    def beside(i: int, chips: tuple[int, ...]) -> int:
        assert companion is not None
        return _allocated(companion.plan, companion.blocks[i], rack, chips, layout)

    def sized(block: ModelBlock, i: int, span: int, exact: bool) -> Size:
        key = block.kind, span, plan.deal if kv_heads(plan.demands, block) else None, exact
        if key in seen:
            return seen[key]
        chips = sum(groups[:span], ())
        after = sum(groups[span : 2 * span], ())
        ranks = ranks_of(plan, block, rack, chips)
        chips, after = chips[:ranks], after[:ranks]
        if exact:
            transient = _allocated(plan, block, rack, chips, layout, after)
            size = replace(sized(block, i, span, False), transient=transient)
        else:
            size = _size(plan, block, rack, chips, after, layout, span)
            if ranks < span * tp:
                size = replace(size, words=np.pad(size.words, (0, span * tp - ranks)), ranks=ranks)
        if companion is not None:
            size = replace(size, transient=max(size.transient, beside(i, chips)))
        return seen.setdefault(key, size)

    for i, block in enumerate(blocks):
        span = wider if block in (blocks[0], blocks[-1]) else 1
        while block.kind not in known:
            size = sized(block, i, span, exact and not block.wire)
            fits = int(size.words.max()) + size.transient <= capacity
            if fits or block.wire or span * 2 > len(groups):
                known[block.kind] = size
            span *= 2
    sizes = [replace(known[block.kind], name=block.name, layer=layer_of(block)) for block in blocks]
    words = capacity - max(size.transient for size in sizes)
    room = Room(rack=rack.name, groups=len(groups), tp=tp, words=words, capacity=rack.chip.sram_words)
    return sizes, replace(room, bad=_bad(rack, groups))


def ranks_of(plan: Plan, block: ModelBlock, rack: Rack, chips: tuple[int, ...]) -> int:
    """How many of these chips a block runs on, the first ones.

    Latent attention of a model with experts takes no more than are neighbours of each other: its exchanges
    are many and small, while experts take all chips for their weights.
    """
    rules = [plan.demands.rule(node) for node in block.nodes]
    latent = any(rule.copied for rule in rules) and not any(rule.everywhere for rule in rules)
    if not (plan.narrow and latent and plan.demands.somewhere_everywhere):
        return len(chips)
    near = 1
    while near < len(chips) and set(chips[:near]).issubset(rack.neighbours(chips[near]).tolist()):
        near += 1
    return near if len(chips) % near == 0 else len(chips)


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
    beside = example(plan, block, rack, chips, layout)
    made = [template(plan, block, *way, 0) for way in _ways(rack, chips, beside, after, layout)]
    return max(int(one.transient_words[: len(one.kv_words)].max()) for one in made)


def example(plan: Plan, block: ModelBlock, rack: Rack, chips: tuple[int, ...], layout: str) -> Beside:
    """Chips that could be beside a block on these chips. Raises CapacityError if there are too few."""
    if plan.cp == 1 or not kv_heads(plan.demands, block):
        return ()
    count = missing(undealt(plan, block, rack, chips, k_parts(layout, len(chips))), plan.cp)
    found = neighbours(rack, chips, count)
    if found is None:
        raise CapacityError(
            "place",
            f"block {block.name}",
            f"its KV heads want {plan.cp} chips each, those of {rack.name} have fewer neighbours",
            "Give a smaller --cp, or leave it out.",
        )
    return found


def _ways(
    rack: Rack, chips: tuple[int, ...], beside: Beside, after: tuple[int, ...], layout: str
) -> list[tuple[Group, Router]]:
    """A block that hands its result to its own chips, and one that hands it to as many others."""
    out: list[tuple[Group, Router]] = []
    for readers in (chips, after):
        if len(readers) == len(chips):
            everyone, keepers, targets = ranked(chips, beside, readers)
            group = replace(alone(len(chips), k_parts(layout, len(chips))), targets=targets, beside=keepers)
            out.append((group, Router(rack, everyone)))
    return out


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
    beside = example(plan, block, rack, chips, layout)
    ways = _ways(rack, chips, beside, () if block.wire else after, layout)
    lows = [lower(plan, block, group, router, context, Kernels())[0] for group, router in ways]
    held = max(_held(low) for low in lows)
    kept = np.max([low.kv_words for low in lows], axis=0)
    return Size(
        name=block.name,
        words=np.max([low.weights.words for low in lows], axis=0) + kept[:ranks],
        transient=(2 * residual_lines(plan.graph) + held) * plan.graph.batch,
        span=span,
        step=_together(plan, block, ranks),
        beside=tuple(len(some) for some in beside),
        lent=tuple(int(kept[some[0]]) if some else 0 for some in ways[0][0].beside),
    )


def _held(low: Lowering) -> int:
    """Lines that a rank holds of all values of a block, at most."""
    kept = [value for value in low.values if value.uid not in low.passing]
    return sum(int(value.held[: low.group.keepers].sum(axis=1).max()) for value in kept)


def _together(plan: Plan, block: ModelBlock, ranks: int) -> int:
    """How many neighbouring ranks a block's KV heads have each, where their contexts are dealt over them."""
    heads = kv_heads(plan.demands, block)
    return ranks // heads[0] if heads and plan.cp > 1 and ranks % heads[0] == 0 else 1
