"""Assignment: which chips run each block, from the options or from a placement that a search gave."""

from dataclasses import dataclass, replace
from itertools import groupby

from compiler.errors import CapacityError, OptionError, bug
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock
from compiler.lower.layout import Deal
from compiler.options import CompileOptions
from compiler.place import registry
from compiler.place.context_parallel import choices
from compiler.place.cost import CostModel
from compiler.place.measure import shards_of
from compiler.place.problem import Placement, Shards, chips_of
from compiler.place.sizes import Companion, Seen, block_sizes
from compiler.place.stages import Room, Size, Stage, assign, groups_used, spread, turned
from compiler.place.strategies import contiguous, random, round_robin
from compiler.place.stripes import Beside, dealt, lend
from compiler.search import doubled, first_that_fits
from compiler.steps import listed
from fabric.numbering import Numbering
from fabric.rack import Rack

GROUPS = {"contiguous": contiguous.groups, "round-robin": round_robin.groups, "random": random.groups}
MOST_WIDER = 16  # groups that the embedding or the head may be spread over to fit

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The chips of each block by rank, the groups that have work, and the plan with its contexts dealt.

    beside: of each block the chips beside its own that keep stripes of contexts; nothing where none does.
    """

    plan: Plan
    groups: Groups
    chips: Groups
    beside: tuple[Beside, ...] = ()

    def __str__(self) -> str:
        runs = [(chips, [i for i, _ in run]) for chips, run in groupby(enumerate(self.chips), lambda x: x[1])]
        head = (
            f"{len(self.chips)} blocks, {len(self.groups)} groups of {len(self.groups[0])} chips in use, "
            f"{self.plan.cp} chips for the context of each KV head"
        )
        lines = [f"{_in_words(tuple(run))} on chips {_in_words(chips)}" for chips, run in runs]
        return "\n".join([head, *listed(lines)])

    def named(self, numbers: Numbering) -> "Assignment":
        """The same with the chips by their numbers in the rack's file."""
        groups, chips = (tuple(map(numbers.named, some)) for some in (self.groups, self.chips))
        beside = tuple(tuple(map(numbers.named, some)) for some in self.beside)
        return replace(self, groups=groups, chips=chips, beside=beside)

    def verify(self) -> None:
        """Raises CompileError if a block has a chip twice, or one that is in no group."""
        known = {chip for group in self.groups for chip in group}
        for i, chips in enumerate(self.chips):
            if len(set(chips)) != len(chips) or not known.issuperset(chips):
                raise bug("place", f"block {i}", f"runs on chips {_in_words(chips)}, not all of its groups")
        for i, (chips, beside) in enumerate(zip(self.chips, self.beside, strict=False)):
            lent = [chip for some in beside for chip in some]
            if len({*chips, *lent}) != len(chips) + len(lent):
                raise bug("place", f"block {i}", f"has chips {_in_words(tuple(lent))} beside it, some twice")


def assign_blocks(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    companion: Companion | None = None,
    beside: bool = False,
    seen: Seen | None = None,
) -> Assignment:
    """Place every block, for the `tp` of the options.

    companion: blocks of other rows, whose transients must fit in the same SRAM. beside: whether chips beside
    a group may keep stripes of contexts, as they may where one step runs at a time. seen: keeps what blocks
    take. Raises CapacityError, PlacementError or OptionError.
    """
    tp = checked_tp(options, rack)
    if options.placement not in GROUPS:
        plan, shards = problem_of(plan, blocks, rack, options)
        cost = CostModel(shards, rack)
        found = registry.search(options.placement, shards, rack, cost, options.seed, registry.BUDGET)
        return as_placed(plan, found, options, rack)
    groups = GROUPS[options.placement](rack, tp, rack.chips // tp, options.seed)
    seen = seen or Seen()

    def fitted(deal: Deal) -> Assignment:
        here = dealt(plan, deal)
        other = companion and replace(companion, plan=dealt(companion.plan, deal))
        sizes, stages, lent = _stages(here, blocks, rack, groups, options, other, seen)
        chips = tuple(_chips(groups, stage, size) for stage, size in zip(stages, sizes, strict=True))
        return Assignment(plan=here, groups=groups[: groups_used(stages, sizes)], chips=chips, beside=lent)

    return first_that_fits(choices(plan, blocks, rack, groups[0], options, beside, seen), fitted)


def problem_of(
    plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions
) -> tuple[Plan, Shards]:
    """What a placement strategy is asked: the plan with its contexts dealt as suits best, and the shards."""
    plan = deal_contexts(plan, blocks, rack, options)
    return plan, shards_of(plan, blocks, rack, checked_tp(options, rack), options.layout)


def deal_contexts(plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions) -> Plan:
    """The plan with its contexts dealt over as many ranks as suits a group best, or as the options say."""
    chips = tuple(range(checked_tp(options, rack)))
    return dealt(plan, choices(plan, blocks, rack, chips, options)[0])


def as_placed(plan: Plan, placement: Placement, options: CompileOptions, rack: Rack) -> Assignment:
    """The blocks of a plan, its contexts dealt, on the chips of a placement."""
    chips = tuple(chips_of(row) for row in placement)
    return Assignment(plan=plan, groups=_groups(chips, checked_tp(options, rack)), chips=chips)


def check_placement(options: CompileOptions) -> None:
    """Raise OptionError for a placement that there is not, before anything is searched for it."""
    if options.placement not in GROUPS:
        registry.strategy(options.placement)


def checked_tp(options: CompileOptions, rack: Rack) -> int:
    """The chips per group; raises OptionError if the rack has fewer."""
    tp = options.tp or 1
    if tp > rack.chips:
        raise OptionError(
            "options",
            f"--tp {tp}",
            f"is above the {rack.chips} chips of {rack.name}",
            f"Give {rack.chips} or less.",
        )
    return tp


def _groups(chips: Groups, tp: int) -> Groups:
    """The chips in use: by groups of `tp` if blocks share all of their chips or none, else one by one."""
    groups: dict[frozenset[int], tuple[int, ...]] = {}
    for mine in chips:
        groups.setdefault(frozenset(mine), mine)
    every = tuple(dict.fromkeys(chip for mine in chips for chip in mine))
    if sum(map(len, groups)) == len(every) and all(len(mine) == tp for mine in groups):
        return tuple(groups.values())
    return tuple((chip,) for chip in every)


def _chips(groups: Groups, stage: Stage, size: Size) -> tuple[int, ...]:
    """The chips of a block by rank."""
    chips = [chip for group in groups[stage.group : stage.group + size.span] for chip in group]
    places = turned(len(chips), stage.turn, size.step).tolist()
    return tuple(chips[place] for place in places[: size.ranks or len(places)])


def _stages(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    groups: Groups,
    options: CompileOptions,
    companion: Companion | None,
    seen: Seen,
) -> tuple[list[Size], list[Stage], tuple[Beside, ...]]:
    """Sizes and stages of the blocks, and the chips beside them.

    Embedding and head spread over more groups until all fits.
    """

    def sized(wider: int, exact: bool = False) -> tuple[list[Size], Room]:
        return block_sizes(plan, blocks, rack, groups, options.layout, wider, companion, exact, seen)

    def fitted(wider: int) -> tuple[int, list[Size], list[Stage], Room]:
        sizes, room = sized(wider)
        if seen.rough:
            empty = replace(room, words=room.most)
            return wider, sizes, assign(sizes, empty, options.pp), empty
        try:
            return wider, sizes, assign(sizes, room, options.pp), room
        except CapacityError as error:
            if not _fits(sizes, replace(room, words=room.capacity), options.pp):
                raise error from None
            sizes, room = sized(wider, exact=True)
            return wider, sizes, assign(sizes, room, options.pp), room

    alone = options.pp is not None or blocks[0].wire is not None
    if seen.brief and not alone:
        sizes, room = sized(1)
        assign(sizes[1:-1], replace(room, words=room.most), None)  # however far embedding and head are spread
    wider, sizes, stages, room = first_that_fits(
        doubled(1 if alone else min(MOST_WIDER, len(groups))), fitted
    )
    if not any(size.beside for size in sizes):
        return sizes, stages, ()
    try:
        return sizes, *_lent(sizes, stages, room, rack, groups, options.pp)
    except CapacityError:
        if seen.rough:
            raise
        empty = replace(room, words=room.most)  # where this is too little, no transients have to be known
        _lent(sizes, assign(sizes, empty, options.pp), empty, rack, groups, options.pp)
        sizes, room = sized(wider, exact=True)
        stages = assign(sizes, room, options.pp)
        return sizes, *_lent(sizes, stages, room, rack, groups, options.pp)


def _lent(
    sizes: list[Size], stages: list[Stage], room: Room, rack: Rack, groups: Groups, pp: int | None
) -> tuple[list[Stage], tuple[Beside, ...]]:
    """The stages and the chips beside the blocks; over more groups where these leave no room beside others.

    Raises CapacityError if none does.
    """
    others = spread(sizes, room, groups_used(stages, sizes)) if pp is None else iter(())
    while True:
        chips = [_chips(groups, stage, size) for stage, size in zip(stages, sizes, strict=True)]
        try:
            return stages, lend(sizes, chips, rack, room)
        except CapacityError as error:
            refused = error
        found = next(others, None)
        if found is None:
            raise refused
        stages = found


def _fits(sizes: list[Size], room: Room, pp: int | None) -> bool:
    """Whether there is an assignment at all."""
    try:
        assign(sizes, room, pp)
    except CapacityError:
        return False
    return True


def _in_words(chips: tuple[int, ...]) -> str:
    """Chips by rank, runs of neighbours as first-last."""
    starts = [i for i in range(len(chips)) if not i or chips[i] != chips[i - 1] + 1]
    ends = [*(i - 1 for i in starts[1:]), len(chips) - 1]
    pairs = [(chips[a], chips[b]) for a, b in zip(starts, ends, strict=True)]
    words = [f"{first}-{last}" if first < last else str(first) for first, last in pairs]
    return " ".join(words[:16]) + (f" ... ({len(chips)} chips)" if len(words) > 16 else "")
