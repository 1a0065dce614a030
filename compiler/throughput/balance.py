"""Balance: consecutive blocks shared out over groups of chips so that the largest load is least."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from compiler.errors import LESS_KV, CapacityError, CompileError, OptionError
from compiler.lower.block import Plan, lower
from compiler.lower.blocks import ModelBlock
from compiler.lower.context import Group
from compiler.lower.rows import Kernels
from compiler.options import CompileOptions
from compiler.place.assignment import GROUPS, Assignment, Groups, assign_blocks, checked_tp
from compiler.place.context_parallel import choices
from compiler.place.sizes import block_sizes, k_parts
from compiler.place.stages import Room, Size, hold_weights, megabytes
from compiler.place.stripes import dealt
from compiler.program.isa import ceil_div
from compiler.route.route import Router
from compiler.search import Search, doubled, until_worse
from compiler.throughput.problem import loads_of
from fabric.rack import Rack

PATIENCE = 2  # values of tp in a row whose load is larger than the least one's, then the search stops


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The group of each block, and the largest load of any unit or link without the hand-overs, in cycles."""

    stages: list[int]
    load: int


def assign_stages(
    plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions
) -> Assignment:
    """The chips of each block: evenly loaded, or, if that takes too many groups, as they fit.

    Raises CapacityError or OptionError.
    """
    groups = _groups(rack, options)
    plan = replace(
        dealt(plan, choices(plan, blocks, rack, groups[0], options)[0]), detours=False, narrow=False
    )
    try:
        shared = balance(plan, blocks, rack, groups, options.layout, options.pp).stages
    except CapacityError:
        if options.pp is not None:
            raise
        return assign_blocks(plan, blocks, rack, options)
    chips = tuple(groups[stage] for stage in shared)
    return Assignment(plan=plan, groups=groups[: shared[-1] + 1], chips=chips)


def best_tp(
    plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions
) -> Search[int, int]:
    """The tp (a power of two) whose stages have the smallest largest load.

    Raises the reason why the last one tried does not fit, if none does.
    """
    hold_weights(plan.graph, rack)

    def load(tp: int) -> int:
        groups = _groups(rack, replace(options, tp=tp))
        return balance(plan, blocks, rack, groups, options.layout, options.pp).load

    tps = doubled(rack.chips)
    search = until_worse(tps, load, lambda load: load, patience=PATIENCE, refused=(CompileError,))
    if search.best is None:
        raise search.refusals[-1]
    return search


def _groups(rack: Rack, options: CompileOptions) -> Groups:
    tp = checked_tp(options, rack)
    return GROUPS[options.placement](rack, tp, rack.chips // tp, options.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What the blocks ask of a group, summed up: cycles of each unit and link, and words of each rank.

    totals, words: of all blocks before each one, and of all.
    """

    sizes: list[Size]
    room: Room
    totals: Int[np.ndarray, "blocks_and_end loads"]
    words: Int[np.ndarray, "blocks_and_end ranks"]

    def among(self, groups: int) -> Balance:
        """The blocks shared out over at most this many groups. Raises CapacityError if they do not fit."""
        totals, words, room = self.totals, self.words, self.room
        low, high = int(np.diff(totals, axis=0).max()), int(totals[-1].max())
        stages = _fill(totals, words, room.words, high)
        if stages[-1] >= groups:
            raise _full(self.sizes, room, stages[-1] + 1, groups)
        while low < high:
            middle = (low + high) // 2
            found = _fill(totals, words, room.words, middle)
            if found[-1] < groups:
                high, stages = middle, found
            else:
                low = middle + 1
        load, low, most_words = high, int(words[-1].max()) // groups, room.words
        while low < most_words:  # equal loads: the emptiest chips, so that most users fit
            middle = (low + most_words) // 2
            found = _fill(totals, words, middle, load)
            if found[-1] < groups:
                most_words, stages = middle, found
            else:
                low = middle + 1
        return Balance(stages=stages, load=load)

    def fewer(self, groups: int, below: int) -> list[int]:
        """Numbers of groups under one, most first, whose load is below a number; of one load the least."""
        found: dict[int, int] = {}
        for fewer in range(groups - 1, 0, -1):
            try:
                load = self.among(fewer).load
            except CapacityError:
                break
            if load >= below:
                break
            found[load] = fewer
        return list(found.values())


def balance(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    groups: Groups,
    layout: str,
    pp: int | None,
) -> Balance:
    """Share the blocks out over at most `pp` groups, all of the rack's by default.

    Raises CapacityError if they do not fit, OptionError for a `pp` that there cannot be.
    """
    most = min(len(groups), len(blocks))
    if pp is not None and pp > most:
        raise OptionError(
            "stages",
            f"--pp {pp}",
            f"there are {len(groups)} groups of {len(groups[0])} chips and {len(blocks)} blocks",
            f"Give --pp {most} or less.",
        )
    return shares(plan, blocks, rack, groups, layout).among(pp or most)


def shares(plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, groups: Groups, layout: str) -> Shares:
    """What each block asks of a group. Raises CapacityError if one does not fit on a group."""
    sizes, room = block_sizes(plan, blocks, rack, groups, layout, 1)
    wide = [size for size in sizes if size.span > 1 or int(size.words.max()) > room.words]
    if wide:
        raise CapacityError(
            "stages",
            f"block {wide[0].name}",
            f"needs {megabytes(int(wide[0].words.sum()))} on {room.tp} chips of {megabytes(room.capacity)}, "
            "and a stage that runs at an interval has one group of chips",
            f"Raise --tp above {room.tp}, or shorten the context or the batch.",
        )
    asked = _asked(plan, blocks, rack, groups[0], layout)
    return Shares(
        sizes=sizes,
        room=room,
        totals=np.concatenate([np.zeros((1, asked.shape[1]), np.int64), np.cumsum(asked, axis=0)]),
        words=np.concatenate([np.zeros((1, room.tp), np.int64), np.cumsum([s.words for s in sizes], axis=0)]),
    )


def fewer_stages(
    assignment: Assignment, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions, below: int
) -> list[int]:
    """Numbers of stages, under those of an assignment, whose load is below this many cycles."""
    groups = _groups(rack, options)
    return shares(assignment.plan, blocks, rack, groups, options.layout).fewer(len(assignment.groups), below)


def _asked(
    plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, chips: tuple[int, ...], layout: str
) -> np.ndarray:
    """Cycles that each block asks of each class of units and each link of its group, as [blocks, loads]."""
    ranks = len(chips)
    shape = Group(
        ranks=ranks,
        k_parts=k_parts(layout, ranks),
        targets=tuple(range(ranks)),
        wanted=np.ones((ranks, 1), bool),
    )
    known: dict[str, dict[tuple[int, int, int], int]] = {}
    for block in blocks:
        if block.kind not in known:
            router = Router(rack, chips)
            low, _ = lower(plan, block, shape, router, max(plan.contexts), Kernels())
            loads = loads_of(low.rows.build(), low.kernels, router, plan.chip, plan.graph.batch)
            known[block.kind] = {
                (one.kind, one.rank, one.peer): int(ceil_div(one.cycles, one.instances)) for one in loads
            }
    names = {name: i for i, name in enumerate(sorted({key for one in known.values() for key in one}))}
    out = np.zeros((len(blocks), max(len(names), 1)), np.int64)
    for i, block in enumerate(blocks):
        for name, cycles in known[block.kind].items():
            out[i, names[name]] = cycles
    return out


def _fill(totals: np.ndarray, words: np.ndarray, room: int, most: int) -> list[int]:
    """The stage of each block if every stage takes as many as `most` cycles and its SRAM allow."""
    stages: list[int] = []
    stage, first = 0, 0
    for block in range(len(totals) - 1):
        over = int((totals[block + 1] - totals[first]).max()) > most
        over |= int((words[block + 1] - words[first]).max()) > room
        if over and block > first:
            stage, first = stage + 1, block
        stages.append(stage)
    return stages


def _full(sizes: list[Size], room: Room, needed: int, groups: int) -> CapacityError:
    return CapacityError(
        "stages",
        f"rack {room.rack}",
        f"the model needs {needed} groups of {room.tp} chips "
        f"({megabytes(sum(int(size.words.sum()) for size in sizes))} of weights and KV), there are {groups}",
        f"Use a larger rack or --pp{LESS_KV}.",
    )
