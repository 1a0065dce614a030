"""Uses: every block of the model on its chips, by a template that equal blocks share."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from compiler.errors import CapacityError, OptionError
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, input_lines
from compiler.lower.context import Group
from compiler.options import CompileOptions
from compiler.place import registry
from compiler.place.context_parallel import choices, dealt
from compiler.place.cost import CostModel
from compiler.place.measure import shards_of
from compiler.place.problem import Placement, chips_of
from compiler.place.sizes import Beside, block_sizes, k_parts
from compiler.place.stages import Size, Stage, assign, groups_used, turned
from compiler.place.strategies import contiguous, random, round_robin
from compiler.program.manifest import Candidate
from compiler.route.route import Router
from compiler.schedule.template import Template, template
from fabric.rack import Rack

GROUPS = {"contiguous": contiguous.groups, "round-robin": round_robin.groups, "random": random.groups}
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One block of the model on its chips (by rank), by the template of that index."""

    block: ModelBlock
    template: int
    chips: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveSchedule:
    """What lets a new wave (a step of other users) enter every `interval` cycles, per context bucket.

    bases: of each use, the cycle of the wave at which it begins. arenas: copies of the transient words by
    chip. bound: no interval of these rows on these chips is shorter; bound_of: the unit or link that sets it.
    """

    bases: list[dict[int, int]]
    arenas: np.ndarray
    cycles: dict[int, int]
    interval: dict[int, int]
    bound: dict[int, int]
    bound_of: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """All blocks scheduled: templates, their uses in order, the groups that have work; cycles of a step.

    chips: of each block by rank. waves: None if one step runs at a time, each block after the one before it.
    search: what was tried to find its `tp`, if that was left to the compiler.
    """

    plan: Plan
    options: CompileOptions
    templates: list[Template]
    uses: list[Use]
    groups: tuple[tuple[int, ...], ...]
    chips: tuple[tuple[int, ...], ...]
    waves: WaveSchedule | None = None
    search: tuple[Candidate, ...] = ()

    @property
    def cycles(self) -> int:
        """Length of a step of the largest context bucket."""
        context = max(self.plan.contexts)
        return sum(self.templates[use.template].cycles[context] for use in self.uses)


def schedule_blocks(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    progress: Progress,
    *,
    beside: Beside | None = None,
    along: Scheduled | None = None,
    placement: Placement | None = None,
) -> Scheduled:
    """Place every block and schedule every template, for the `tp` of the options.

    beside: the same blocks at another number of rows, whose transients must fit in the same SRAM.
    along: blocks scheduled before, on whose chips these go. placement: the chips of every shard, if they are
    already chosen, for a plan whose contexts are dealt.
    Raises CapacityError, RoutingError, PlacementError or OptionError.
    """
    if along is not None:
        plan, groups, chips = dealt(plan, along.plan.cp), along.groups, along.chips
    elif placement is not None:
        chips = tuple(chips_of(row) for row in placement)
        groups = _groups(chips, checked_tp(options, rack))
    else:
        plan, groups, chips = place_blocks(plan, blocks, rack, options, beside)
    book = _Book(plan, rack, options.layout)
    uses: list[Use] = []
    for i, block in enumerate(blocks):
        progress("schedule", i, len(blocks))
        after = (i + 1) % len(blocks)
        if block.wire:
            uses.append(book.hop(block, chips[i]))
        else:
            uses.append(book.use(block, chips[i], blocks[after], chips[after], i % 2))
    return Scheduled(
        plan=plan,
        options=replace(options, cp=plan.cp),
        templates=book.templates,
        uses=uses,
        groups=groups,
        chips=chips,
    )


def place_blocks(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    beside: Beside | None = None,
) -> tuple[Plan, tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """(the plan, its contexts dealt over ranks; the groups that have work; the chips of each block)."""
    tp = checked_tp(options, rack)
    if options.placement not in GROUPS:
        plan = dealt(plan, choices(plan, blocks, rack, tuple(range(tp)), options)[0])
        shards = shards_of(plan, blocks, rack, tp, options.layout)
        cost = CostModel(shards, rack)
        found = registry.search(options.placement, shards, rack, cost, options.seed, registry.BUDGET)
        chips = tuple(chips_of(row) for row in found)
        return plan, _groups(chips, tp), chips
    groups = GROUPS[options.placement](rack, tp, rack.chips // tp, options.seed)
    plan, (sizes, stages) = _fitted(plan, blocks, rack, groups, options, beside)
    chips = tuple(_chips(groups, stage, size) for stage, size in zip(stages, sizes, strict=True))
    return plan, groups[: groups_used(stages, sizes)], chips


def checked_tp(options: CompileOptions, rack: Rack) -> int:
    """The chips per group; raises OptionError unless they divide the rack."""
    tp = options.tp or 1
    if rack.chips % tp:
        raise OptionError(
            "options",
            f"--tp {tp}",
            f"does not divide the {rack.chips} chips of {rack.name}",
            f"Give a divisor of {rack.chips}.",
        )
    return tp


def _groups(chips: tuple[tuple[int, ...], ...], tp: int) -> tuple[tuple[int, ...], ...]:
    """The chips in use: by groups of `tp` if blocks share all of their chips or none, else one by one."""
    groups: dict[frozenset[int], tuple[int, ...]] = {}
    for mine in chips:
        groups.setdefault(frozenset(mine), mine)
    every = tuple(dict.fromkeys(chip for mine in chips for chip in mine))
    if sum(map(len, groups)) == len(every) and all(len(mine) == tp for mine in groups):
        return tuple(groups.values())
    return tuple((chip,) for chip in every)


def _chips(groups: tuple[tuple[int, ...], ...], stage: Stage, size: Size) -> tuple[int, ...]:
    """The chips of a block by rank."""
    chips = [chip for group in groups[stage.group : stage.group + size.span] for chip in group]
    return tuple(chips[place] for place in turned(len(chips), stage.turn, size.step).tolist())


def _fitted(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    groups: tuple[tuple[int, ...], ...],
    options: CompileOptions,
    beside: Beside | None,
) -> tuple[Plan, tuple[list[Size], list[Stage]]]:
    """The plan with the contexts dealt over the ranks that suit best and fit; sizes and stages."""
    first: CapacityError | None = None
    for cp in choices(plan, blocks, rack, groups[0], options):
        chosen = dealt(plan, cp)
        other = beside and (dealt(beside[0], cp), beside[1])
        try:
            return chosen, _stages(chosen, blocks, rack, groups, options, other)
        except CapacityError as error:
            first = first or error
    assert first is not None
    raise first


def _stages(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    groups: tuple[tuple[int, ...], ...],
    options: CompileOptions,
    beside: Beside | None,
) -> tuple[list[Size], list[Stage]]:
    """Sizes and stages of the blocks; embedding and head spread over more groups until all fits."""
    first: CapacityError | None = None
    for wider in (1, 2, 4, 8, 16):
        if wider > len(groups) or (first and (options.pp is not None or blocks[0].wire)):
            break
        sizes, room = block_sizes(plan, blocks, rack, groups, options.layout, wider, beside)
        try:
            return sizes, assign(sizes, room, options.pp)
        except CapacityError as error:
            first = first or error
    assert first is not None
    raise first


class _Book:
    """Templates made so far, looked up by block kind, parity and routes."""

    def __init__(self, plan: Plan, rack: Rack, layout: str) -> None:
        self.plan, self.rack, self.layout = plan, rack, layout
        self.templates: list[Template] = []
        self._needs: dict[tuple[str, int], np.ndarray] = {}
        self._by_key: dict[tuple[str, int, tuple[int, ...], bytes, int], list[int]] = {}
        self._hops: dict[tuple[str, tuple[int, ...]], Use] = {}

    def use(
        self,
        block: ModelBlock,
        chips: tuple[int, ...],
        reader: ModelBlock,
        after: tuple[int, ...],
        parity: int,
    ) -> Use:
        """The block on `chips`, its result going to the block `reader` on the chips `after`."""
        others = tuple(chip for chip in after if chip not in chips)
        ranks = {chip: rank for rank, chip in enumerate(chips + others)}
        targets = tuple(ranks[chip] for chip in after)
        return self._use(block, chips, others, targets, self._wanted(reader, len(after)), parity)

    def hop(self, block: ModelBlock, chips: tuple[int, ...]) -> Use:
        """The hop on `chips`, its result going to the host lanes."""
        if (block.kind, chips) not in self._hops:
            found = self._use(block, chips, (), (), np.zeros((0, 0), bool), 0)
            self._hops[block.kind, chips] = found
        return replace(self._hops[block.kind, chips], block=block)

    def _use(
        self,
        block: ModelBlock,
        chips: tuple[int, ...],
        others: tuple[int, ...],
        targets: tuple[int, ...],
        wanted: np.ndarray,
        parity: int,
    ) -> Use:
        key = (block.kind, len(chips), targets, wanted.tobytes(), parity)
        known = self._by_key.setdefault(key, [])
        for index in known:
            router = Router(self.rack, chips + others)
            if router.same_as(self.templates[index].router):
                return Use(block=block, template=index, chips=tuple(router.chips))
        router = Router(self.rack, chips + others)
        group = Group(
            ranks=len(chips), k_parts=k_parts(self.layout, len(chips)), targets=targets, wanted=wanted
        )
        self.templates.append(template(self.plan, block, group, router, parity))
        known.append(len(self.templates) - 1)
        return Use(block=block, template=known[-1], chips=tuple(router.chips))

    def _wanted(self, reader: ModelBlock, ranks: int) -> np.ndarray:
        key = (reader.kind, ranks)
        if key not in self._needs:
            parts = k_parts(self.layout, ranks)
            self._needs[key] = input_lines(self.plan.demands, reader, ranks, parts)
        return self._needs[key]
