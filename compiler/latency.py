"""Objective latency: one step at a time, every block by a template that equal blocks share."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool

from compiler.errors import LESS_KV, CapacityError, CompileError, OptionError
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, block_of, layer_of
from compiler.options import PLACEMENTS, CompileOptions
from compiler.place.assignment import Assignment, assign_blocks
from compiler.place.sizes import Companion, Seen
from compiler.place.stages import hold_weights
from compiler.program.manifest import Candidate
from compiler.schedule.handed import unread
from compiler.schedule.template import Template
from compiler.scheduled import Scheduled, TemplateCall
from compiler.search import FOREVER, Search, doubled, nearest, until_worse
from compiler.steps import Progress
from compiler.template_cache import TemplateCache, Where
from fabric.rack import Rack

PATIENCE = 2  # values of tp in a row whose step is no shorter than the shortest, then the search stops
MANY = 32  # blocks of a step, from which a tp may be given up before all of its templates are made
SPARE = (
    16  # it is given up if what is known of its blocks is longer than the shortest step by this part of it
)


def fastest(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    progress: Progress,
    companion: Companion | None = None,
) -> Search[int, Scheduled]:
    """The tp (a power of two) with the shortest step; each one is really scheduled, or given up (`TooLong`).

    From as many chips as are neighbours of each other upwards until the step gets longer; then downwards to
    one, which exchanges nothing. Either way until weights and KV have no room: in finer parts they take no
    less, on fewer chips they fit no better.
    If none fits, raises the CapacityError that asks for the fewest chips, or else the first OptionError.
    """
    hold_weights(plan.graph, rack)
    least = FOREVER
    given_up: dict[int, TooLong] = {}

    def scheduled(tp: int) -> Scheduled | TooLong:
        nonlocal least
        chosen = replace(options, tp=tp)
        assignment = assign_sharing(plan, blocks, rack, chosen, companion, brief=least < FOREVER)
        found = schedule_within(assignment, blocks, rack, chosen, progress, least + least // SPARE)
        if isinstance(found, TooLong):
            given_up[tp] = found
        least = min(least, found.cycles)
        return found

    tps, near = list(doubled(rack.chips)), joined(rack)
    up = until_worse(
        [tp for tp in tps if tp >= near],
        scheduled,
        lambda found: found.cycles,
        patience=PATIENCE,
        refused=(CapacityError, OptionError),
        hopeless=lambda error: isinstance(error, CapacityError) and error.overfull,
    )
    down = until_worse(
        [tp for tp in tps if tp < near][::-1],
        scheduled,
        lambda found: found.cycles,
        patience=len(tps),
        refused=(CapacityError, OptionError),
        hopeless=lambda error: isinstance(error, CapacityError),
        before=up.best,
    )
    search = Search(tried=(*down.tried[::-1], *up.tried), best=down.best)
    if search.best is None:
        full = [error for error in search.refusals if isinstance(error, CapacityError)]
        reason = nearest(full[::-1]) if full else search.refusals[0]
        if "--tp" in reason.remedy:
            shorter = ", a smaller --prefill" if "--prefill" in reason.remedy else ""
            reason.remedy = f"No --tp fits {rack.name}: use a larger rack{shorter}{LESS_KV}."
        raise reason
    tp, best = search.best
    assert isinstance(best, Scheduled), "what is given up is longer than what is not"
    tried = tuple(_candidate(tp, found, given_up.get(tp)) for tp, found in search.tried)
    return Search(tried=search.tried, best=(tp, replace(best, search=tried)))


def joined(rack: Rack) -> int:
    """How many chips a link joins with those that both of its ends have links to, at most: a power of two.

    It is the size of a tray where all of its chips have links to each other, whatever their numbers.
    """
    near, links = np.zeros((rack.chips, rack.chips), bool), rack.links
    near[links.a, links.b] = True
    packed = np.packbits(near, axis=1)
    common = np.bitwise_count(packed[links.a] & packed[links.b]).sum(axis=1, dtype=np.int64).max(initial=-1)
    return 1 << (int(common) + 2).bit_length() - 1


def some_tp_may_fit(plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions) -> bool:
    """Whether there is a tp that weights and KV alone do not refuse; nothing is scheduled to find out.

    True where it is not known: of models with experts, and of a tp or a placement that the options state.
    """
    if options.tp is not None or options.placement not in PLACEMENTS or plan.demands.somewhere_everywhere:
        return True
    for tp in doubled(rack.chips):
        seen = Seen(rough=True, brief=True)
        for by_rows in (True, False):
            try:
                about = replace(plan, by_rows=by_rows), blocks, rack, replace(options, tp=tp)
                assign_blocks(*about, beside=True, seen=seen)
                return True
            except (CapacityError, OptionError):
                if not seen.dealt:
                    break
                seen = seen.alike()
    return False


def _candidate(tp: int, found: int | CompileError, given_up: "TooLong | None") -> Candidate:
    if given_up is not None:
        return Candidate(tp=tp, reason=str(given_up))
    if isinstance(found, int):
        return Candidate(tp=tp, cycles=found)
    return Candidate(tp=tp, reason=f"{found.subject} {found.reason}")


def assign_sharing(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    companion: Companion | None,
    *,
    brief: bool = False,
) -> Assignment:
    """The chips of every block; what a companion adds is told in terms of `--prefill`. brief: see `Seen`."""
    less = [{"narrow": False}] if plan.demands.somewhere_everywhere else []
    seen = Seen(brief=brief)
    for changes in ({}, *less):
        try:
            return _with(changes, plan, blocks, rack, options, companion, seen)
        except CapacityError:
            if not less and companion is None and not seen.dealt:
                raise  # nothing would be other than it is
            seen = seen.alike() if not less and companion is None else Seen(brief=brief)
    return _with({"narrow": False, "by_rows": False}, plan, blocks, rack, options, companion, seen)


def _with(
    changes: dict[str, bool],
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    companion: Companion | None,
    seen: Seen | None = None,
) -> Assignment:
    """The chips of every block of a plan, and of its companion, with these changes."""
    other = companion and replace(companion, plan=replace(companion.plan, **changes))
    return _assigned(replace(plan, **changes), blocks, rack, options, other, seen)


def _assigned(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    companion: Companion | None,
    seen: Seen | None = None,
) -> Assignment:
    if companion is None:
        return assign_blocks(plan, blocks, rack, options, beside=True, seen=seen)
    with blaming_prefill(companion.plan.chunk, lambda: assign_blocks(plan, blocks, rack, options)):
        return assign_blocks(plan, blocks, rack, options, companion, beside=True)


@contextmanager
def blaming_prefill(tokens: int, without: Callable[[], Any]) -> Generator[None]:
    """A CapacityError inside is one of --prefill, unless the decode step does not fit without it either."""
    try:
        yield
    except CapacityError as error:
        without()
        raise CapacityError(
            error.stage,
            f"--prefill {tokens}",
            f"its transients lie beside weights and KV, and {error.subject} {error.reason}",
            "Give a smaller --prefill, or raise --tp or --pp.",
        ) from error


def schedule_blocks(
    assignment: Assignment,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    progress: Progress,
) -> Scheduled:
    """Schedule every block on its chips, equal ones once, those of a layer together. Raises RoutingError.

    The token of a decode step goes to the first group, which begins the next step; those of a chunk stay in
    the last group, as the next chunk is known.
    """
    found = schedule_within(assignment, blocks, rack, options, progress, FOREVER)
    assert isinstance(found, Scheduled)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLong:
    """A step given up: `cycles` of its blocks so far, of the others those of the shortest of their kind."""

    cycles: int

    def __str__(self) -> str:
        return f"given up, its blocks add up to {self.cycles:,} cycles by the first of each kind"


def schedule_within(
    assignment: Assignment,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    progress: Progress,
    most: int,
) -> Scheduled | TooLong:
    """The same; a step of many blocks is given up as soon as it would take more than `most` cycles.

    Asked when a template is made, before the next one.
    """
    cache = TemplateCache(assignment, rack, options.layout)
    calls: list[TemplateCall] = []
    merged = by_layer(assignment, blocks)
    for i, (block, where) in enumerate(merged):
        progress("schedule", i, len(merged))
        reader, after = merged[(i + 1) % len(merged)]
        if block.wire:
            calls.append(cache.hop(block, where.chips))
        elif i == len(merged) - 1 and assignment.plan.chunk > 1:
            calls.append(cache.last(block, where, i % 2))
        else:
            from_ = cache.arrived(block, where.chips, calls[-1] if calls else None)
            calls.append(cache.call(block, where, reader, after.chips, i % 2, from_))
        if len(merged) >= MANY and calls[-1].template == len(cache.templates) - 1:
            cycles = _about(calls, cache.templates, [block for block, _ in merged[i + 1 :]])
            if cycles > most:
                return TooLong(cycles=cycles)
    calls = _all_read(cache, merged, calls)
    return Scheduled(
        assignment=assignment,
        options=replace(options, cp=assignment.plan.cp),
        templates=cache.templates,
        calls=calls,
    )


def _all_read(
    cache: TemplateCache, merged: list[tuple[ModelBlock, Where]], calls: list[TemplateCall]
) -> list[TemplateCall]:
    """The calls; those whose result a chip computes where the next block does not read it are made anew."""
    known: dict[tuple[int, ...], Bool[np.ndarray, "targets lines"]] = {}
    out = list(calls)
    for i, ((block, where), (reader, after)) in enumerate(pairwise(merged)):
        if block.wire:
            continue
        ours, theirs = calls[i], calls[i + 1]
        rank = {chip: at for at, chip in enumerate(ours.chips)}
        key = ours.template, theirs.template, *(rank.get(chip, -1) for chip in theirs.chips)
        if key not in known:
            lines = cache.wanted(reader, len(after.chips)).shape[1]
            made, by = (cache.templates[one.template] for one in (ours, theirs))
            known[key] = unread(made, ours.chips, by, theirs.chips, after.chips, lines)
        if known[key].any():
            from_ = cache.arrived(block, where.chips, calls[i - 1])
            out[i] = cache.call(block, where, reader, after.chips, i % 2, from_, known[key])
    return out if out == calls else cache.only(out)


def _about(calls: list[TemplateCall], templates: list[Template], others: list[ModelBlock]) -> int:
    """Cycles of calls, and of other blocks those of the shortest call of their kind, if there is one."""
    known: dict[str, int] = {}
    total = 0
    for call in calls:
        made = templates[call.template].cycles
        cycles = made[max(made)]
        total += cycles
        known[call.block.kind] = min(cycles, known.get(call.block.kind, cycles))
    return total + sum(known.get(block.kind, 0) for block in others)


def by_layer(assignment: Assignment, blocks: tuple[ModelBlock, ...]) -> list[tuple[ModelBlock, Where]]:
    """Neighbouring blocks of one layer on the same chips as one: none waits for all of another to end."""
    plan, beside = assignment.plan, assignment.beside or ((),) * len(blocks)
    out: list[tuple[ModelBlock, Where]] = []
    for block, chips, mine in zip(blocks, assignment.chips, beside, strict=True):
        last, there = out[-1] if out and plan.by_layer else (None, Where(()))
        together = last is not None and there.chips == chips and not (mine and there.beside)
        if last is not None and together and not block.wire and layer_of(block) == layer_of(last) != "":
            nodes = last.nodes + block.nodes
            whole = block_of(plan.graph, nodes, last.source, block.result, name=layer_of(block))
            out[-1] = whole, Where(chips, mine or there.beside)
        else:
            out.append((block, Where(chips, mine)))
    return out
