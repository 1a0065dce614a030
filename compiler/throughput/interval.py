"""Waves: the stages of a model, scheduled so that a new wave may enter every interval."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from compiler.errors import CapacityError, CompileError
from compiler.latency import GROUPS, Progress, Scheduled, Use, WaveSchedule, checked_tp, place_blocks
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, input_lines
from compiler.lower.context import Group
from compiler.options import CompileOptions
from compiler.place.context_parallel import choices, dealt
from compiler.place.sizes import k_parts
from compiler.program.isa import LINK, ceil_div
from compiler.route.route import Router
from compiler.throughput.balance import balance
from compiler.throughput.modulo import Placed, place
from compiler.throughput.problem import CLASS_NAMES
from compiler.throughput.rings import Masks, Rings
from compiler.throughput.stage import EmittedStage, LoweredStage, emit_stage, lower_stage
from fabric.rack import Rack

MOST_OF_BOUND = 4  # an interval so many times its bound is given up


def schedule_waves(
    plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions, progress: Progress
) -> Scheduled:
    """Place every stage and schedule it at the shortest interval found, for the `tp` of the options.

    Raises CapacityError, RoutingError, OptionError, or CompileError if no interval is found.
    """
    tp = checked_tp(options, rack)
    groups = GROUPS[options.placement](rack, tp, rack.chips // tp, options.seed)
    options = replace(options, cp=options.cp or 1)
    plan = replace(dealt(plan, choices(plan, blocks, rack, groups[0], options)[0]), detours=False)
    chips, used = _shared_out(plan, blocks, rack, groups, options)
    book = _Book(plan, rack, options.layout)
    cuts = [i for i in range(len(blocks)) if not i or chips[i] != chips[i - 1]]
    for first, end in zip(cuts, [*cuts[1:], len(blocks)], strict=True):
        progress("lower", first, len(blocks))
        after = end % len(blocks)
        book.use(blocks[first:end], chips[first], blocks[after], chips[after])
    found = {context: _interval(book, context, options.interval_slack, progress) for context in plan.contexts}
    return _emitted(plan, book, options, groups[:used], found)


def _shared_out(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    groups: tuple[tuple[int, ...], ...],
    options: CompileOptions,
) -> tuple[list[tuple[int, ...]], int]:
    """The chips of each block: evenly loaded, or, if that takes too many groups, as they fit."""
    try:
        shared = balance(plan, blocks, rack, groups, options.layout, options.pp).stages
    except CapacityError:
        if options.pp is not None:
            raise
        _, used, chips = place_blocks(plan, blocks, rack, options)
        return list(chips), len(used)
    return [groups[stage] for stage in shared], shared[-1] + 1


def best_tp(
    plan: Callable[[], Plan], blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions
) -> int:
    """The tp (a power of two that divides the rack) whose stages have the smallest largest load.

    Raises the reason why the last one tried does not fit, if none does.
    """
    best: tuple[int, int] | None = None
    reason: CompileError | None = None
    worse, tp = 0, 1
    while rack.chips % tp == 0 and worse < 2:
        groups = GROUPS[options.placement](rack, tp, rack.chips // tp, options.seed)
        try:
            load = balance(plan(), blocks, rack, groups, options.layout, options.pp).load
        except CompileError as error:
            if best is not None:
                break
            reason = error
        else:
            worse = 0 if best is None or load < best[0] else worse + 1
            best = (load, tp) if not worse else best
        tp *= 2
    if best is None:
        assert reason is not None
        raise reason
    return best[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An interval at which all stages fit: per stage its base and its rows, the cycles of a wave."""

    interval: int
    bound: int
    what: str
    bases: list[int]
    placed: list[tuple[int, Placed]]
    cycles: int


class _Book:
    """Stages lowered so far, looked up by what they hold and where they hand it to."""

    def __init__(self, plan: Plan, rack: Rack, layout: str) -> None:
        self.plan, self.rack, self.layout = plan, rack, layout
        self.lowered: list[LoweredStage] = []
        self.uses: list[tuple[int, tuple[int, ...]]] = []
        self.blocks: list[tuple[ModelBlock, ...]] = []
        self._by_key: dict[tuple[str, tuple[int, ...], bytes], list[int]] = {}
        self._tried: dict[tuple[int, int, int, Masks, Masks], int] = {}
        self.placed: list[Placed | None] = []

    def use(
        self,
        blocks: tuple[ModelBlock, ...],
        chips: tuple[int, ...],
        reader: ModelBlock,
        after: tuple[int, ...],
    ) -> None:
        """The next stage, on `chips`; its result goes to the block `reader` on the chips `after`."""
        others = tuple(chip for chip in after if chip not in chips)
        ranks = {chip: rank for rank, chip in enumerate(chips + others)}
        targets = tuple(ranks[chip] for chip in after)
        wanted = self._wanted(reader, len(after))
        key = ("\n".join(block.kind for block in blocks), targets, wanted.tobytes())
        self.blocks.append(blocks)
        for index in self._by_key.setdefault(key, []):
            router = Router(self.rack, chips + others)
            if router.same_as(self.lowered[index].router):
                self.uses.append((index, tuple(router.chips)))
                return
        router = Router(self.rack, chips + others)
        own = tuple(range(len(chips)))
        parts = k_parts(self.layout, len(chips))
        groups = [
            Group(ranks=len(chips), k_parts=parts, targets=own, wanted=self._wanted(block, len(chips)))
            for block in blocks[1:]
        ]
        groups.append(Group(ranks=len(chips), k_parts=parts, targets=targets, wanted=wanted))
        self.lowered.append(lower_stage(self.plan, blocks, tuple(groups), router))
        self._by_key[key].append(len(self.lowered) - 1)
        self.uses.append((len(self.lowered) - 1, tuple(router.chips)))

    def _wanted(self, reader: ModelBlock, ranks: int) -> np.ndarray:
        parts = k_parts(self.layout, ranks)
        return input_lines(self.plan.demands, reader, ranks, parts)

    def place(self, index: int, context: int, interval: int, free: Masks, held: Masks) -> int | None:
        """The number of the placement of a stage on rings that are free and held so, if there is one."""
        key = (index, context, interval, free, held)
        if key not in self._tried:
            body = self.lowered[index].bodies[context].problem
            self._tried[key] = len(self.placed)
            found = place(body.problem, interval, free, held, advance=False)
            self.placed.append(found or place(body.problem, interval, free, held, advance=True))
        number = self._tried[key]
        return None if self.placed[number] is None else number


def _interval(book: _Book, context: int, slack: float, progress: Progress) -> _Found:
    """The shortest interval found, from the bound (times the slack) on."""
    bodies = [stage.bodies[context].problem for stage in book.lowered]
    bound, what = _bound(book, context)
    start = max(-int(-bound * Fraction(str(slack)) // 1), *(body.least for body in bodies))
    heavy = sorted(range(len(bodies)), key=lambda i: (-bodies[i].least, i))
    interval, step = start, max(1, start // 128)
    while interval <= MOST_OF_BOUND * start:
        progress("interval", interval - start, start)
        found = _at(book, context, interval, heavy)
        if found is not None:
            bases, placed, cycles = found
            return _Found(
                interval=interval, bound=bound, what=what, bases=bases, placed=placed, cycles=cycles
            )
        interval, step = interval + step, ceil_div(5 * step, 4)
    raise CompileError(
        "interval",
        f"context {context}",
        f"no interval from {start} to {interval} cycles has room for every row",
        "Raise --interval-slack, or change --tp or --pp.",
    )


def _bound(book: _Book, context: int) -> tuple[int, str]:
    """The largest load of any class of units or any link, all stages added up, and whose it is."""
    asked: dict[tuple[int, int, int], tuple[int, int]] = {}
    for index, chips in book.uses:
        for load in book.lowered[index].bodies[context].problem.loads:
            key = (load.kind, chips[load.rank], chips[load.peer] if load.kind == LINK else -1)
            asked[key] = (asked.get(key, (0, 0))[0] + load.cycles, load.instances)
    cycles, what = 1, "nothing"
    for (kind, chip, peer), (total, instances) in asked.items():
        if ceil_div(total, instances) > cycles:
            cycles = int(ceil_div(total, instances))
            to = f" to chip {peer}" if kind == LINK else ""
            what = f"{CLASS_NAMES[kind]} of chip {chip}{to}"
    return cycles, what


def _at(
    book: _Book, context: int, interval: int, heavy: list[int]
) -> tuple[list[int], list[tuple[int, Placed]], int] | None:
    """Bases and placements of all stages at an interval, and the cycles of a wave; None if one fits not."""
    stages = [one.bodies[context].problem for one in book.lowered]
    for index in heavy:  # alone: what does not fit so fits not at all
        chips = tuple(range(len(book.lowered[index].router.chips)))
        if book.place(index, context, interval, *Rings(interval).seen(stages[index], chips, 0)) is None:
            return None
    rings, base = Rings(interval), 0
    bases: list[int] = []
    out: list[tuple[int, Placed]] = []
    for index, chips in book.uses:
        number = book.place(index, context, interval, *rings.seen(stages[index], chips, base))
        placed = None if number is None else book.placed[number]
        if number is None or placed is None:
            return None
        rings.take(stages[index], chips, base, placed)
        bases.append(base)
        out.append((number, placed))
        base += int((placed.start + np.array(stages[index].problem.latency)).max(initial=0))
    return bases, out, base


def _emitted(
    plan: Plan,
    book: _Book,
    options: CompileOptions,
    groups: tuple[tuple[int, ...], ...],
    found: dict[int, _Found],
) -> Scheduled:
    """Templates and uses of all stages, and what a wave needs to follow another."""
    templates = []
    uses: list[Use] = []
    bases: list[dict[int, int]] = []
    made: dict[tuple[int, int, tuple[int, ...]], tuple[int, EmittedStage]] = {}
    lives: dict[int, list[np.ndarray]] = {context: [] for context in plan.contexts}
    for i, (index, chips) in enumerate(book.uses):
        key = (index, i % 2, tuple(one.placed[i][0] for one in found.values()))
        if key not in made:
            placed = {context: one.placed[i][1] for context, one in found.items()}
            made[key] = (len(templates), emit_stage(plan, book.lowered[index], placed, i % 2))
            templates += made[key][1].templates
        number, stage = made[key]
        for j, block in enumerate(book.blocks[i]):
            uses.append(Use(block=block, template=number + j, chips=chips))
            bases.append({c: one.bases[i] + stage.starts[j][c] for c, one in found.items()})
        for context, one in found.items():
            life = stage.lives[context]
            place = np.array(chips)[life.rank] << 40 | life.word
            lives[context].append(np.stack([place, life.first + one.bases[i], life.last + one.bases[i]]))
    out = templates[uses[-1].template]
    outputs = [uses[-1].chips[rank] << 40 | word for rank, word, _ in out.logits]
    arenas = np.ones(book.rack.chips, np.int64)
    for context, one in found.items():
        kept = np.array(outputs, np.int64)  # until the host has read them, when the wave ends
        ends = np.stack([kept, np.full(len(kept), one.cycles), np.full(len(kept), one.cycles)])
        chip, span = _spans(np.concatenate([*lives[context], ends], axis=1))
        np.maximum.at(arenas, chip, ceil_div(span, one.interval))
    return Scheduled(
        plan=plan,
        options=options,
        templates=templates,
        uses=uses,
        groups=groups,
        chips=tuple(use.chips for use in uses),
        waves=WaveSchedule(
            bases=bases,
            arenas=arenas,
            cycles={context: one.cycles for context, one in found.items()},
            interval={context: one.interval for context, one in found.items()},
            bound={context: one.bound for context, one in found.items()},
            bound_of={context: one.what for context, one in found.items()},
        ),
    )


def _spans(lives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(chip, cycles that a wave needs the line) of every line; `lives` has rows place, first and last."""
    place, index = np.unique(lives[0], return_inverse=True)
    first, last = np.full(len(place), 1 << 62), np.full(len(place), -1)
    np.minimum.at(first, index, lives[1])
    np.maximum.at(last, index, lives[2])
    return place >> 40, last - first + 1
