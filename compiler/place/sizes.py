"""Sizes: what each block takes of SRAM on each rank, by lowering one of each kind."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.errors import CapacityError
from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock, kv_heads, layer_of
from compiler.lower.context import Group, Lowering
from compiler.lower.layout import Deal
from compiler.lower.rope_table import angle_words
from compiler.lower.rows import Kernels
from compiler.place.stages import Room, Size
from compiler.place.stripes import Beside, Chips, Whole, alone, missing, neighbours, ranked, undealt
from compiler.route.route import Router
from compiler.schedule.template import residual_lines, template
from fabric.rack import Rack


class BlockWords(NamedTuple):
    """What a lowered block takes: words of weights and of KV by rank, and the most lines that one holds."""

    weights: Int[np.ndarray, " ranks"]
    kv: Int[np.ndarray, " ranks"]
    held: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found of blocks by kind, on the same groups, by plans that differ in their deal at most.

    sizes: by groups that a block runs on, how contexts are dealt where it has any, and whether exact.
    taken: of the longest context, by deal, chips by rank, and the ranks beside and that the result goes to.
    dealt: kinds that `Plan.by_rows` changes. rough: nothing is scheduled, as though there were no transients,
    and blocks are lowered for one token (weights and KV take the same): what does not fit then does not fit.
    brief: what has no room is refused as soon as that is known, not with the fewest chips that would do.
    """

    sizes: dict[tuple[str, int, Deal | None, bool], Size] = field(
        default_factory=dict[tuple[str, int, Deal | None, bool], Size]
    )
    whole: Whole = field(default_factory=Whole)
    taken: dict[tuple[str, Deal, Chips, Beside, Chips], BlockWords] = field(
        default_factory=dict[tuple[str, Deal, Chips, Beside, Chips], BlockWords]
    )
    dealt: set[str] = field(default_factory=set[str])
    rough: bool = False
    brief: bool = False

    def alike(self) -> "Seen":
        """What is the same without `Plan.by_rows`."""
        whole = {key: one for key, one in self.whole.items() if key[0] not in self.dealt}
        taken = {key: one for key, one in self.taken.items() if key[0] not in self.dealt}
        sizes = {key: one for key, one in self.sizes.items() if key[0] not in self.dealt}
        return Seen(sizes, whole, taken, rough=self.rough, brief=self.brief)


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
    seen: Seen | None = None,
) -> tuple[list[Size], Room]:
    """What each block takes of SRAM and on how many neighbouring groups; and the room there is.

    wider: the first and the last block (embedding and head) take at least this many groups. Hops take one.
    companion: blocks whose transients must have room there as well. exact: transients are found by scheduling
    each block that the room depends on, not estimated from above: those that would not fit by the estimate,
    and the one with most of them. seen: what other calls for the same groups found.
    """
    seen = Seen() if seen is None else seen
    tp = len(groups[0])
    capacity = rack.chip.sram_words - angle_words(plan.graph)
    known: dict[str, Size] = {}
    places: dict[str, tuple[int, int]] = {}

    @functools.cache
    def beside(i: int, chips: tuple[int, ...]) -> int:
        assert companion is not None
        return allocated(companion.plan, companion.blocks[i], rack, chips, layout)

    def sized(block: ModelBlock, i: int, span: int, exact: bool) -> Size:
        key = block.kind, span, plan.deal if kv_heads(plan.demands, block) else None, exact
        if key in seen.sizes:
            return seen.sizes[key]
        chips = sum(groups[:span], ())
        after = sum(groups[span : 2 * span], ())
        ranks = ranks_of(plan, block, rack, chips)
        chips, after = chips[:ranks], after[:ranks]
        if exact:
            transient = allocated(plan, block, rack, chips, layout, after, seen)
            size = replace(sized(block, i, span, False), transient=transient)
        else:
            size = _size(plan, block, rack, chips, after, layout, seen, span)
            if ranks < span * tp:
                size = replace(size, words=np.pad(size.words, (0, span * tp - ranks)), ranks=ranks)
        if companion is not None:
            size = replace(size, transient=max(size.transient, beside(i, chips)))
        return seen.sizes.setdefault(key, size)

    def fits(size: Size) -> bool:
        return int(size.words.max()) + (0 if seen.rough else size.transient) <= capacity

    for i, block in enumerate(blocks):
        span = wider if block in (blocks[0], blocks[-1]) else 1
        while block.kind not in known:
            size = sized(block, i, span, False)
            scheduled = exact and not block.wire and not fits(size)
            size = sized(block, i, span, True) if scheduled else size
            if fits(size) or block.wire or span * 2 > len(groups):
                known[block.kind], places[block.kind] = size, (i, span)
            span *= 2
    if exact:
        wired = {block.kind for block in blocks if block.wire}
        _schedule_most(known, wired, lambda kind: sized(blocks[places[kind][0]], *places[kind], True))
    sizes = [replace(known[block.kind], name=block.name, layer=layer_of(block)) for block in blocks]
    words = capacity - max(size.transient for size in sizes)
    room = Room(rack=rack.name, groups=len(groups), tp=tp, words=words, capacity=rack.chip.sram_words)
    return sizes, replace(room, most=capacity, bad=_bad(rack, groups))


def _schedule_most(known: dict[str, Size], wired: set[str], scheduled: Callable[[str], Size]) -> None:
    """Schedule the kind with most transients until it is one that was: others take less than estimated."""
    while True:
        kind = max(known, key=lambda one: known[one].transient)
        size = known[kind] if kind in wired else scheduled(kind)
        if size is known[kind]:
            return
        known[kind] = size


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


def allocated(
    plan: Plan,
    block: ModelBlock,
    rack: Rack,
    chips: Chips,
    layout: str,
    after: Chips = (),
    seen: Seen | None = None,
) -> int:
    """Transient words of the fullest rank, found by scheduling; after: chips it may hand on to as well."""
    beside = example(plan, block, rack, chips, layout, seen)
    ways = [(group, Router(rack, everyone)) for group, everyone in _ways(chips, beside, after, layout)]
    made = [template(plan, block, *way, 0) for way in ways]
    return max(int(one.transient_words[: len(one.kv_words)].max()) for one in made)


def example(
    plan: Plan, block: ModelBlock, rack: Rack, chips: Chips, layout: str, seen: Seen | None = None
) -> Beside:
    """Chips that could be beside a block on these chips. Raises CapacityError if there are too few."""
    if plan.cp == 1 or not kv_heads(plan.demands, block):
        return ()
    whole = undealt(plan, block, rack, chips, k_parts(layout, len(chips)), seen and seen.whole)
    found = neighbours(rack, chips, missing(whole, plan.cp))
    if found is None:
        raise CapacityError(
            "place",
            f"block {block.name}",
            f"its KV heads want {plan.cp} chips each, those of {rack.name} have fewer neighbours",
            "Give a smaller --cp, or leave it out.",
        )
    return found


def _ways(chips: Chips, beside: Beside, after: Chips, layout: str) -> list[tuple[Group, Chips]]:
    """A block that hands its result to its own chips, and one that hands it to as many others; by rank."""
    return [
        way_to(readers, chips, beside, k_parts(layout, len(chips)))
        for readers in (chips, after)
        if len(readers) == len(chips)
    ]


def way_to(readers: Chips, chips: Chips, beside: Beside, parts: int) -> tuple[Group, Chips]:
    """The group of a block that hands all of its result to these chips, and its chips by rank."""
    everyone, keepers, targets = ranked(chips, beside, readers)
    return replace(alone(len(chips), parts), targets=targets, beside=keepers), everyone


def straight(
    plan: Plan, block: ModelBlock, rack: Rack, way: tuple[Group, Chips], context: int, seen: Seen
) -> Lowering:
    """A block lowered without detours; what it takes of the longest context is kept."""
    group, chips = way
    low, _ = lower(replace(plan, detours=False), block, group, Router(rack, chips), context, Kernels())
    if low.rows_dealt:
        seen.dealt.add(block.kind)
    if seen.rough or context == max(plan.contexts):
        key = block.kind, plan.deal, chips, group.beside, group.targets
        seen.taken[key] = BlockWords(low.weights.words, low.kv_words, _held(low))
    return low


def _taken(plan: Plan, block: ModelBlock, rack: Rack, way: tuple[Group, Chips], seen: Seen) -> BlockWords:
    group, chips = way
    key = block.kind, plan.deal, chips, group.beside, group.targets
    if key not in seen.taken:
        straight(plan, block, rack, way, 1 if seen.rough else max(plan.contexts), seen)
    return seen.taken[key]


def _size(
    plan: Plan,
    block: ModelBlock,
    rack: Rack,
    chips: Chips,
    after: Chips,
    layout: str,
    seen: Seen,
    span: int,
) -> Size:
    """What a block takes, whether it hands its result to itself or to the chips `after`."""
    ranks = len(chips)
    beside = example(plan, block, rack, chips, layout, seen)
    ways = _ways(chips, beside, () if block.wire or seen.rough else after, layout)
    found = [_taken(plan, block, rack, way, seen) for way in ways]
    kept = np.max([one.kv for one in found], axis=0)
    return Size(
        name=block.name,
        words=np.max([one.weights for one in found], axis=0) + kept[:ranks],
        transient=(2 * residual_lines(plan.graph) + max(one.held for one in found)) * plan.graph.batch,
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
