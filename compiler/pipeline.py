"""The whole compiler on one screen: step -> graph -> blocks -> scheduled templates -> program."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from compiler.assemble import assemble
from compiler.blocks import cut
from compiler.capture import capture
from compiler.errors import CapacityError, CompileError, OptionError
from compiler.graph import Graph
from compiler.layout import Demands
from compiler.lower import Plan
from compiler.lower_attention import kv_capacity
from compiler.modulo_uses import best_tp, schedule_waves
from compiler.options import CompileOptions
from compiler.program import Program
from compiler.rows import Kernels
from compiler.uses import Progress, Scheduled, schedule_blocks
from fabric.rack import Rack


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is compiled: a traceable decode step, its shapes, and what the manifest says of the model."""

    step: Callable[..., Any]
    params: dict[str, Any]
    tokens: Any
    position: Any
    cache: Any
    contexts: tuple[int, ...]
    model: dict[str, Any]


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
    chosen = _fastest(rack, scheduled) if options.tp is None else scheduled(options.tp)
    progress("assemble", 0, 1)
    return assemble(rack, source.model, chosen)


def _fastest(rack: Rack, scheduled: Callable[[int], Scheduled]) -> Scheduled:
    """The tp (a power of two that divides the rack) with the shortest step among those that fit.

    Each candidate is really scheduled; the search stops when two in a row are slower than the best.
    """
    best: Scheduled | None = None
    reason: CompileError | None = None
    worse, tp = 0, 1
    while rack.chips % tp == 0 and worse < 2:
        try:
            found = scheduled(tp)
        except (CapacityError, OptionError) as error:
            if best is not None:
                break
            if reason is None or isinstance(error, CapacityError):
                reason = error
        else:
            worse = 0 if best is None or found.cycles < best.cycles else worse + 1
            best = found if not worse else best
        tp *= 2
    if best is None:
        assert reason is not None
        raise reason
    return best


def plan_of(source: Source, graph: Graph, rack: Rack) -> Plan:
    """What all blocks share."""
    return Plan(
        graph=graph,
        demands=Demands(graph),
        chip=rack.chip,
        contexts=source.contexts,
        capacity=kv_capacity(source.contexts, rack.chip.planes),
        kernels=Kernels(),
    )
