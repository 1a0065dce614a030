"""The whole compiler on one screen: step -> graph -> blocks -> chips -> templates -> memory -> program."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from compiler.analyse.early import fetched
from compiler.assemble import assemble
from compiler.choose.planes import shortest
from compiler.choose.request import fastest_request, require_choice
from compiler.errors import CapacityError, CompileError, OptionError, advising
from compiler.latency import assign_sharing, blaming_prefill, fastest, schedule_blocks, some_tp_may_fit
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock
from compiler.memory import sram_map, users_that_fit
from compiler.options import AUTO, STRATEGIES, CompileOptions
from compiler.place.assignment import Assignment, as_placed, check_placement, deal_contexts, problem_of
from compiler.place.problem import Placement, PlacementError, Shards
from compiler.place.sizes import Companion
from compiler.place.stripes import dealt
from compiler.program.isa import WORD_BYTES
from compiler.program.program import Program
from compiler.scheduled import Scheduled
from compiler.source import Source, Traced, spilled, spills, traced
from compiler.steps import Progress, Steps, quiet
from compiler.throughput.balance import assign_stages, best_tp
from compiler.throughput.cache import lower_stages
from compiler.throughput.chunks import follow
from compiler.throughput.fewer import best_of_fewer
from compiler.throughput.filled import fill_waves
from compiler.throughput.interval import find_intervals
from compiler.throughput.waves import emit_waves
from fabric.faults.broken import avoiding
from fabric.faults.fault import BadWords
from fabric.numbering import Numbering, as_given, numbering
from fabric.rack import Rack

NEARLY_FULL = 0.75  # of a rack's SRAM
Made = TypeVar("Made")


def compile_program(
    source: Source | Traced,
    rack: Rack,
    options: CompileOptions,
    progress: Progress = quiet,
    dump_dir: Path | None = None,
    numbers: Numbering | None = None,
) -> Program:
    """Compile a decode step for a rack, of a source or of what it was traced to before.

    dump_dir: a folder; what each step gives is written there as text, in order. numbers: the order in which
    chips of the rack are taken, if not the one of `numbers_of`.
    Raises CompileError (UnsupportedOpError, CapacityError, RoutingError, OptionError).
    """
    if options.objective == "pareto":
        raise OptionError(
            "options",
            "--objective pareto",
            "compares programs and makes none",
            "Choose --objective throughput and an --interval-slack.",
        )
    if options.tp is None:
        require_choice(options, None)
    step = Steps(progress, dump_dir)
    model = source if isinstance(source, Traced) else traced(source, step)
    if options.spill == AUTO:
        return _first_that_fits(
            spills(model, options),
            lambda asked: compile_program(model, rack, asked, progress, dump_dir, numbers),
        )
    model = spilled(model, options)
    if model.source.chunk > 1 and options.objective == "throughput":
        subject, why = "--objective throughput", "steps of whole sequences do not follow each other in waves"
        raise OptionError("options", subject, why, "Leave it out.")
    schedule = in_waves if options.objective == "throughput" else one_by_one

    def made(rack: Rack, numbers: Numbering, less: dict[str, bool]) -> Program:
        def scheduled_on(machine: Rack) -> Scheduled:
            plan = replace(model.plan(machine, options), **less)
            return schedule(step, plan, model.blocks, machine, options)

        scheduled = shortest(numbers.rack, scheduled_on).named(numbers)
        there = replace(rack, chip=scheduled.plan.chip)
        sram = step("memory", sram_map, there, scheduled)
        return fetched(step("assemble", assemble, there, model.source.model, scheduled, sram), there)

    with advising(model.source.model.kv):
        return with_room(made, rack, numbers or step("number", numbers_of, rack, options), options)


def may_fit(model: Traced, rack: Rack, options: CompileOptions) -> bool:
    """Whether the KV of a model is worth a compilation: not where weights and KV alone fit at no tp.

    Asked where these are most of a rack: with less of them some tp nearly always fits.
    """
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(model.source.cache))
    held += sum(leaf.size for leaf in jax.tree.leaves(model.source.params) if leaf.dtype == np.uint8)
    near = held > NEARLY_FULL * rack.chips * rack.chip.sram_bytes
    if not near or rack.damage is not None or options.objective != "latency" or options.spill is not None:
        return True
    machine = numbers_of(rack, options).rack
    return some_tp_may_fit(model.plan(machine, options), model.blocks, machine, options)


def _first_that_fits(asked: Sequence[CompileOptions], made: Callable[[CompileOptions], Program]) -> Program:
    """The program of the first options whose KV fits. Raises CapacityError of the last if none does."""
    for options in asked[:-1]:
        try:
            return made(options)
        except CapacityError:
            continue
    return made(asked[-1])


def with_room(
    made: Callable[[Rack, Numbering, dict[str, bool]], Made],
    rack: Rack,
    numbers: Numbering,
    options: CompileOptions,
) -> Made:
    """What is made on a rack; where bad words leave too little room, without the chips that have them."""
    try:
        return _together(partial(made, rack, numbers))
    except CapacityError as error:
        bad = () if rack.damage is None else rack.damage.bad
        if not bad or {words.chip for words in bad}.issuperset(numbers.chips.tolist()):
            raise
        rack = avoiding(rack)
        try:
            return _together(partial(made, rack, numbers_of(rack, options)))
        except CompileError as less:
            reason = f"{error.reason}; {_worst(rack, bad)}; without such chips: {less.subject}: {less.reason}"
            raise CapacityError(error.stage, error.subject, reason, less.remedy) from less


def _worst(rack: Rack, bad: tuple[BadWords, ...]) -> str:
    """The chip with the most bad words, in words."""
    lost: dict[int, int] = {}
    for words in bad:
        lost[words.chip] = lost.get(words.chip, 0) + words.stop - words.first
    chip = max(lost, key=lambda one: (lost[one], -one))
    every = rack.chip.sram_words * WORD_BYTES
    return f"chip {chip} has {lost[chip] * WORD_BYTES} bad bytes of {every}"


def _together(made: Callable[[dict[str, bool]], Made]) -> Made:
    """What is made with all that may take more room; where transients do not fit, with less of it."""
    for less in ({}, {"better": False}):
        try:
            return made(less)
        except CapacityError as error:
            if error.stage != "allocate":
                raise
    return made({"better": False, "by_layer": False})


def numbers_of(rack: Rack, options: CompileOptions) -> Numbering:
    """The numbers by which chips are chosen: of the wiring, or of the file for a user's own strategy."""
    return numbering(rack) if options.placement in STRATEGIES else as_given(rack)


def one_by_one(
    step: Steps,
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    companion: Companion | None = None,
) -> Scheduled:
    """Objective latency: blocks one after another, for the tp of the options or the one that is fastest."""
    check_placement(options)
    if options.tp is None:
        _, scheduled = step("search", fastest, plan, blocks, rack, options, step.progress, companion).found
        step.found("place", scheduled.assignment)
        return step.found("schedule", scheduled)
    assignment = step("place", assign_sharing, plan, blocks, rack, options, companion)
    return step("schedule", schedule_blocks, assignment, blocks, rack, options, step.progress)


def in_waves(
    step: Steps, plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions
) -> Scheduled:
    """Objective throughput: stages side by side, for the tp of the options or the one of least load."""
    if options.tp is None:
        tp, _ = step("search", best_tp, plan, blocks, rack, options).found
        options = replace(options, tp=tp)
    options = replace(options, cp=options.cp or 1)
    found = _waves(step, plan, blocks, rack, options)
    if options.pp is not None:
        return found
    again, users_of = partial(_waves, Steps(step.progress), plan, blocks, rack), partial(users_that_fit, rack)
    return step("stages", best_of_fewer, found, again, users_of, blocks, rack, options)


def _waves(
    step: Steps, plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions
) -> Scheduled:
    """The waves of `pp` stages, or of as many as there can be."""
    assignment = step("place", assign_stages, plan, blocks, rack, options)
    stages = step("lower", lower_stages, assignment, blocks, rack, options.layout, step.progress)
    if options.interval_slack is None:
        users_of = partial(users_that_fit, rack)
        return step("schedule", fill_waves, stages, options, users_of, step.progress)
    slack = dict.fromkeys(assignment.plan.contexts, options.interval_slack)
    intervals = step("interval", find_intervals, stages, slack, step.progress)
    return step("schedule", emit_waves, stages, intervals, options)


def compile_pair(
    source: Source,
    chunk: Source,
    rack: Rack,
    options: CompileOptions,
    progress: Progress = quiet,
    dump_dir: Path | None = None,
    numbers: Numbering | None = None,
) -> tuple[Program, Program]:
    """Compile a decode step, and a step of the same model that prefills a chunk of one sequence of its cache.

    Both programs have one memory image: the same weights, KV and placement, chosen for the decode step.
    dump_dir, numbers: as for `compile_program`.
    Raises CompileError as `compile_program` does, of what the chunk adds in terms of `--prefill`.
    """
    tokens = chunk.chunk
    if options.spill is not None:
        reason = "chunks of a prompt are appended to SRAM alone"
        raise OptionError("options", f"--prefill {tokens}", reason, "Leave out --prefill or --spill.")
    if options.cold is not None:
        reason = "chunks of a prompt take all experts from SRAM"
        raise OptionError("options", f"--prefill {tokens}", reason, "Leave out --prefill or --cold.")
    chunk = _fitting(chunk, source, options)
    if options.request is not None and options.tp is None:

        def by(asked: CompileOptions) -> tuple[Program, Program]:
            return compile_pair(source, chunk, rack, asked, progress, dump_dir, numbers)

        return fastest_request(by, rack, options, tokens, max(source.contexts))
    step = Steps(progress, dump_dir)
    decode, prefill = traced(source, step), traced(chunk, step, "-prefill")

    def beside(machine: Rack) -> Companion:
        return Companion(plan=prefill.plan(machine, options, source), blocks=prefill.blocks)

    def made(rack: Rack, numbers: Numbering, less: dict[str, bool]) -> tuple[Program, Program]:
        def decoding(machine: Rack) -> Scheduled:
            plan = replace(decode.plan(machine, options, appended=tokens), **less)
            return one_by_one(step, plan, decode.blocks, machine, options, beside(machine))

        found = shortest(numbers.rack, decoding)
        machine = replace(numbers.rack, chip=found.plan.chip)
        same = {name: getattr(found.plan, name) for name in ("by_rows", "by_layer", "better")}
        plan = replace(dealt(beside(machine).plan, found.plan.deal), **same)
        there, how = replace(found.assignment, plan=plan), found.options
        long = step("schedule-prefill", schedule_chunks, there, prefill.blocks, machine, how, step.progress)
        scheduled, long = found.named(numbers), long.named(numbers)
        rack_in_use = replace(rack, chip=machine.chip)
        with blaming_prefill(tokens, lambda: sram_map(rack_in_use, scheduled)):
            sram = step("memory", sram_map, rack_in_use, scheduled, long)
        return (
            step("assemble", assemble, rack_in_use, source.model, scheduled, sram, tokens),
            step("assemble-prefill", assemble, rack_in_use, source.model, long, sram, tokens),
        )

    with advising(source.model.kv):
        return with_room(made, rack, numbers or step("number", numbers_of, rack, options), options)


def schedule_chunks(
    assignment: Assignment,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    progress: Progress,
) -> Scheduled:
    """The blocks of a chunk, as waves if the options ask for it and it lets the next chunk enter sooner.

    Waves go straight: a way round would lead over chips that have other chunks. Raises RoutingError.
    """
    if options.waves and len({*assignment.chips}) > 1:
        straight = replace(assignment, plan=replace(assignment.plan, detours=False))
        found = follow(schedule_blocks(straight, blocks, rack, options, progress), rack)
        assert found.waves is not None
        if all(found.waves.interval[context] < cycles for context, cycles in found.waves.cycles.items()):
            return found
    return schedule_blocks(assignment, blocks, rack, options, progress)


def _fitting(chunk: Source, decode: Source, options: CompileOptions) -> Source:
    """The chunk for the contexts that hold it; raises OptionError if there is none."""
    longest = max(decode.contexts)
    if options.objective != "latency":
        raise OptionError(
            "options",
            f"--prefill {chunk.chunk}",
            f"goes with --objective latency, not {options.objective}",
            "Leave out one of them.",
        )
    if chunk.chunk > longest:
        raise OptionError(
            "options",
            f"--prefill {chunk.chunk}",
            f"is above the longest context, {longest}",
            f"Give --prefill {longest} or less.",
        )
    return replace(chunk, contexts=tuple(c for c in decode.contexts if c >= chunk.chunk))


def placement_problem(model: Traced, rack: Rack, options: CompileOptions) -> tuple[Shards, int]:
    """What a placement strategy is asked, and over how many ranks (`cp`) the contexts are dealt in it."""
    plan, shards = problem_of(model.plan(rack, options), model.blocks, rack, options)
    return shards, plan.cp


def compile_placed(
    model: Traced, rack: Rack, options: CompileOptions, placement: Placement, progress: Progress = quiet
) -> Program:
    """Compile a decode step onto the chips of a placement, such as a strategy gives.

    placement: in the numbers of the rack's file. Raises CapacityError or RoutingError.
    """
    step, blocks, numbers = Steps(progress), model.blocks, numbering(rack)
    plan = deal_contexts(model.plan(rack, options), blocks, numbers.rack, options)
    number = np.full(rack.chips, -1)
    number[numbers.chips] = np.arange(len(numbers.chips))
    here = number[placement]
    if (here < 0).any():
        lost = int(np.asarray(placement)[here < 0][0])
        reason = f"is one of the {rack.chips - len(numbers.chips)} lost chips of {rack.name}"
        raise PlacementError("place", f"chip {lost}", reason, "Place on chips that work.")
    assignment = step("place", as_placed, plan, here, options, numbers.rack)
    scheduled = step("schedule", schedule_blocks, assignment, blocks, numbers.rack, options, progress)
    scheduled = scheduled.named(numbers)
    sram = step("memory", sram_map, rack, scheduled)
    return step("assemble", assemble, rack, model.source.model, scheduled, sram)
