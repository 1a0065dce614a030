"""Objective latency: one step at a time, every block by a template that equal blocks share."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from compiler.errors import LESS_KV, CapacityError, CompileError, OptionError
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, block_of, input_lines, layer_of
from compiler.lower.context import Group
from compiler.options import CompileOptions
from compiler.place.assignment import Assignment, assign_blocks
from compiler.place.sizes import Companion, k_parts
from compiler.place.stripes import Beside, ranked
from compiler.program.manifest import Candidate
from compiler.route.reuse import Reuse
from compiler.schedule.template import Template, template
from compiler.scheduled import Scheduled, TemplateCall
from compiler.search import FOREVER, Search, doubled, nearest, until_worse
from compiler.steps import Progress
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

    If none fits, raises the CapacityError that asks for the fewest chips, or else the first OptionError.
    """
    least = FOREVER
    given_up: dict[int, TooLong] = {}

    def scheduled(tp: int) -> Scheduled | TooLong:
        nonlocal least
        chosen = replace(options, tp=tp)
        assignment = assign_sharing(plan, blocks, rack, chosen, companion)
        found = schedule_within(assignment, blocks, rack, chosen, progress, least + least // SPARE)
        if isinstance(found, TooLong):
            given_up[tp] = found
        least = min(least, found.cycles)
        return found

    search = until_worse(
        doubled(rack.chips),
        scheduled,
        lambda found: found.cycles,
        patience=PATIENCE,
        refused=(CapacityError, OptionError),
    )
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
) -> Assignment:
    """The chips of every block; what a companion adds is told in terms of `--prefill`."""
    less = [{"narrow": False}] if plan.demands.somewhere_everywhere else []
    for changes in ({}, *less):
        try:
            return _with(changes, plan, blocks, rack, options, companion)
        except CapacityError:
            continue
    return _with({"narrow": False, "by_rows": False}, plan, blocks, rack, options, companion)


def _with(
    changes: dict[str, bool],
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    companion: Companion | None,
) -> Assignment:
    """The chips of every block of a plan, and of its companion, with these changes."""
    other = companion and replace(companion, plan=replace(companion.plan, **changes))
    return _assigned(replace(plan, **changes), blocks, rack, options, other)


def _assigned(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    companion: Companion | None,
) -> Assignment:
    if companion is None:
        return assign_blocks(plan, blocks, rack, options, beside=True)
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
            calls.append(cache.call(block, where, reader, after.chips, i % 2))
        if len(merged) >= MANY and calls[-1].template == len(cache.templates) - 1:
            cycles = _about(calls, cache.templates, [block for block, _ in merged[i + 1 :]])
            if cycles > most:
                return TooLong(cycles=cycles)
    return Scheduled(
        assignment=assignment,
        options=replace(options, cp=assignment.plan.cp),
        templates=cache.templates,
        calls=calls,
    )


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


class Where(NamedTuple):
    """The chips of a block by rank, and those beside them."""

    chips: tuple[int, ...]
    beside: Beside = ()


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


class TemplateCache:
    """Templates made so far, looked up by block kind, parity and routes."""

    def __init__(self, assignment: Assignment, rack: Rack, layout: str) -> None:
        self.plan, self.rack, self.layout = assignment.plan, rack, layout
        self.templates: list[Template] = []
        self._needs: dict[tuple[str, int], Bool[np.ndarray, "ranks lines"]] = {}
        self._reuse = Reuse(rack, thrifty=self.plan.demands.somewhere_everywhere)
        self._hops: dict[tuple[str, tuple[int, ...]], TemplateCall] = {}

    def call(
        self,
        block: ModelBlock,
        where: Where,
        reader: ModelBlock,
        after: tuple[int, ...],
        parity: int,
    ) -> TemplateCall:
        """The block where it runs, its result going to the block `reader` on the chips `after`."""
        return self._call(block, where, after, self._wanted(reader, len(after)), parity)

    def last(self, block: ModelBlock, where: Where, parity: int) -> TemplateCall:
        """The block where it runs, its result staying on the first of its chips."""
        return self._call(block, where, where.chips[:1], np.ones((1, 1), bool), parity)

    def hop(self, block: ModelBlock, chips: tuple[int, ...]) -> TemplateCall:
        """The hop on `chips`, its result going to the host lanes."""
        if (block.kind, chips) not in self._hops:
            found = self._call(block, Where(chips), (), np.zeros((0, 0), bool), 0)
            self._hops[block.kind, chips] = found
        return replace(self._hops[block.kind, chips], block=block)

    def _call(
        self,
        block: ModelBlock,
        where: Where,
        after: tuple[int, ...],
        wanted: Bool[np.ndarray, "targets lines"],
        parity: int,
    ) -> TemplateCall:
        everyone, beside, targets = ranked(where.chips, where.beside, after)
        key = (block.kind, len(where.chips), beside, targets, wanted.tobytes(), parity)
        known = self._reuse.find(key, everyone)
        if known is None:
            router, parts = self._reuse.router(everyone), k_parts(self.layout, len(where.chips))
            ranks = len(where.chips)
            group = Group(ranks=ranks, k_parts=parts, targets=targets, wanted=wanted, beside=beside)
            made = template(self.plan, block, group, router, parity)
            known = len(self.templates), tuple(made.router.chips)
            self._reuse.add(key, made.router, known[0])
            self.templates.append(made)
        return TemplateCall(block=block, template=known[0], chips=known[1])

    def _wanted(self, reader: ModelBlock, ranks: int) -> Bool[np.ndarray, "ranks lines"]:
        key = (reader.kind, ranks)
        if key not in self._needs:
            self._needs[key] = input_lines(self.plan.demands, reader, ranks, k_parts(self.layout, ranks))
        return self._needs[key]
