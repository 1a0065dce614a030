"""The whole compiler on one screen: step -> graph -> blocks -> scheduled templates -> program."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax

from compiler.assemble import assemble, sram_map
from compiler.errors import CapacityError, CompileError, OptionError
from compiler.graph.capture import capture
from compiler.graph.graph import Graph
from compiler.latency import Candidate, Progress, Scheduled, place_blocks, schedule_blocks
from compiler.lower.block import Plan
from compiler.lower.blocks import cut
from compiler.lower.ops.attention import kv_capacity
from compiler.lower.rules import demands_of
from compiler.options import CompileOptions
from compiler.program.manifest import ModelIdentity
from compiler.program.program import Program
from compiler.throughput.interval import best_tp, schedule_waves
from fabric.rack import Rack


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is compiled: a traceable step, its shapes, and what the manifest says of the model.

    chunk: tokens of each sequence that it takes, 1 to decode.
    """

    step: Callable[..., Any]
    params: dict[str, Any]
    tokens: Any
    position: Any
    cache: Any
    contexts: tuple[int, ...]
    model: ModelIdentity
    chunk: int = 1

    @property
    def cached(self) -> int:
        """Sequences of the KV cache."""
        return next((leaf.shape[0] for leaf in jax.tree.leaves(self.cache)), self.tokens.shape[0])


def quiet(stage: str, done: int, total: int) -> None:
    """No progress reports."""


def compile_program(
    source: Source, rack: Rack, options: CompileOptions, progress: Progress = quiet
) -> Program:
    """Compile a decode step for a rack.

    Raises CompileError (UnsupportedOpError, CapacityError, RoutingError, OptionError).
    """
    if options.objective == "pareto":
        raise OptionError(
            "options",
            "--objective pareto",
            "compares programs and makes none",
            "Choose --objective throughput and an --interval-slack.",
        )
    progress("capture", 0, 1)
    graph = capture(source.step, source.params, source.tokens, source.position, source.cache)
    blocks = cut(graph)

    def scheduled(tp: int) -> Scheduled:
        plan = plan_of(source, graph, rack)
        schedule = schedule_waves if options.objective == "throughput" else schedule_blocks
        return schedule(plan, blocks, rack, replace(options, tp=tp), progress)

    if options.objective == "throughput" and options.tp is None:
        tp = best_tp(lambda: plan_of(source, graph, rack), blocks, rack, options)
        options = replace(options, tp=tp)
    chosen = fastest(rack, scheduled) if options.tp is None else scheduled(options.tp)
    progress("assemble", 0, 1)
    return assemble(rack, source.model, chosen, sram_map(rack, chosen))


def compile_pair(
    source: Source, chunk: Source, rack: Rack, options: CompileOptions, progress: Progress = quiet
) -> tuple[Program, Program]:
    """Compile a decode step, and a step of the same model that prefills a chunk of one sequence of its cache.

    Both programs have one memory image: the same weights, KV and placement, chosen for the decode step.
    Raises CompileError as `compile_program` does, of what the chunk adds in terms of `--prefill`.
    """
    if options.objective != "latency":
        raise OptionError(
            "options",
            f"--prefill {chunk.chunk}",
            f"goes with --objective latency, not {options.objective}",
            "Leave out one of them.",
        )
    progress("capture", 0, 1)
    graph = capture(source.step, source.params, source.tokens, source.position, source.cache)
    long = capture(chunk.step, chunk.params, chunk.tokens, chunk.position, chunk.cache)
    blocks, long_blocks = cut(graph), cut(long)
    fitting = replace(chunk, contexts=tuple(c for c in source.contexts if c >= chunk.chunk))
    if not fitting.contexts:
        raise OptionError(
            "options",
            f"--prefill {chunk.chunk}",
            f"is above the longest context, {max(source.contexts)}",
            f"Give --prefill {max(source.contexts)} or less.",
        )

    def scheduled(tp: int) -> Scheduled:
        plan, here = plan_of(source, graph, rack), replace(options, tp=tp)
        beside = plan_of(fitting, long, rack, source), long_blocks
        with _blaming(chunk.chunk, lambda: place_blocks(plan_of(source, graph, rack), blocks, rack, here)):
            return schedule_blocks(plan, blocks, rack, here, progress, beside=beside)

    chosen = fastest(rack, scheduled) if options.tp is None else scheduled(options.tp)
    long_plan = plan_of(fitting, long, rack, source)
    prefill = schedule_blocks(long_plan, long_blocks, rack, chosen.options, progress, along=chosen)
    progress("assemble", 0, 1)
    with _blaming(chunk.chunk, lambda: sram_map(rack, chosen)):
        sram = sram_map(rack, chosen, prefill)
    return (
        assemble(rack, source.model, chosen, sram, chunk.chunk),
        assemble(rack, source.model, prefill, sram, chunk.chunk),
    )


@contextmanager
def _blaming(tokens: int, without: Callable[[], Any]) -> Generator[None]:
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


def fastest(rack: Rack, scheduled: Callable[[int], Scheduled]) -> Scheduled:
    """The tp (a power of two that divides the rack) with the shortest step among those that fit.

    Each candidate is really scheduled; the search stops when two in a row are slower than the best.
    """
    best: Scheduled | None = None
    reason: CompileError | None = None
    tried: list[Candidate] = []
    worse, tp = 0, 1
    while rack.chips % tp == 0 and worse < 2:
        try:
            found = scheduled(tp)
        except (CapacityError, OptionError) as error:
            tried.append(Candidate(tp=tp, reason=f"{error.subject} {error.reason}"))
            if best is not None:
                break
            if reason is None or isinstance(error, CapacityError):
                reason = error
        else:
            tried.append(Candidate(tp=tp, cycles=found.cycles))
            worse = 0 if best is None or found.cycles < best.cycles else worse + 1
            best = found if not worse else best
        tp *= 2
    if best is None:
        assert reason is not None
        if "--tp" in reason.remedy:
            shorter = "a smaller --prefill" if "--prefill" in reason.remedy else "a shorter context"
            reason.remedy = f"No --tp fits {rack.name}: use a larger rack, {shorter}, or kv: fp8."
        raise reason
    return replace(best, search=tuple(tried))


def plan_of(source: Source, graph: Graph, rack: Rack, decode: Source | None = None) -> Plan:
    """What all blocks share. decode: whose cache the step of `source` works on, if not its own."""
    decode = decode or source
    return Plan(
        graph=graph,
        demands=demands_of(graph),
        chip=rack.chip,
        contexts=source.contexts,
        capacity=kv_capacity(decode.contexts, rack.chip.planes),
        cached=decode.cached,
        chunk=source.chunk,
    )
