"""The whole compiler on one screen: step -> graph -> blocks -> stages -> templates -> program."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

from compiler.assemble import Use, angle_words, assemble
from compiler.blocks import ModelBlock, cut
from compiler.capture import capture
from compiler.errors import CapacityError, CompileError, OptionError
from compiler.graph import Graph
from compiler.layout import Demands
from compiler.lower import Plan, lower
from compiler.lower_attention import kv_capacity
from compiler.lowering import Group
from compiler.options import CompileOptions
from compiler.place import contiguous, random, round_robin
from compiler.program import Program
from compiler.route import Router
from compiler.rows import Kernels
from compiler.stages import Size, assign
from compiler.template import Template, residual_lines, template
from fabric.rack import Rack

PLACE = {"contiguous": contiguous.place, "round-robin": round_robin.place, "random": random.place}
Progress = Callable[[str, int, int], None]


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
    progress("capture", 0, 1)
    graph = capture(source.step, source.params, source.tokens, source.position, source.cache)
    blocks = cut(graph)
    if options.tp is None:
        options = replace(options, tp=fastest_tp(source, graph, blocks, rack, options, progress))
    return _compile(source, graph, blocks, rack, options, progress)


def _compile(
    source: Source,
    graph: Graph,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    progress: Progress,
) -> Program:
    tp = checked_tp(options, rack)
    plan = plan_of(source, graph, rack)
    groups = PLACE[options.placement](rack, tp, rack.chips // tp, options.seed)
    shape = Group(ranks=tp, k_parts=k_parts(options.layout, tp), targets=tuple(range(tp)))
    shared = angle_words(graph)
    sizes = block_sizes(plan, blocks, shape, Router(rack, groups[0]))
    stages = assign(
        sizes,
        groups=len(groups),
        pp=options.pp,
        capacity=rack.chip.sram_words,
        shared=shared,
        tp=tp,
        rack=rack.name,
    )
    book = _Book(plan, rack, shape)
    uses: list[Use] = []
    for i, block in enumerate(blocks):
        progress("schedule", i, len(blocks))
        after = groups[stages[(i + 1) % len(blocks)]]
        which, chips = book.template(block, groups[stages[i]], after, i % 2)
        uses.append(Use(block=block, template=which, chips=chips))
    return assemble(plan, rack, options, source.model, book.templates, uses, groups[: stages[-1] + 1])


def fastest_tp(
    source: Source,
    graph: Graph,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    options: CompileOptions,
    progress: Progress,
) -> int:
    """The tp (a power of two that divides the rack) with the shortest step among those that fit.

    Each candidate is really scheduled; the search stops when two in a row are slower than the best.
    """
    best, worse = (0, 0), 0
    reason: CompileError = OptionError("stages", rack.name, "no tp divides the rack", "Give --tp.")
    tp = 1
    while rack.chips % tp == 0 and worse < 2:
        try:
            program = _compile(source, graph, blocks, rack, replace(options, tp=tp), progress)
            cycles = program.manifest["cycles"][str(max(source.contexts))]
            worse = 0 if best == (0, 0) or cycles < best[0] else worse + 1
            if best == (0, 0) or cycles < best[0]:
                best = (cycles, tp)
        except (CapacityError, OptionError) as error:
            reason = error
            if best != (0, 0):
                break
        tp *= 2
    if best == (0, 0):
        raise reason
    return best[1]


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


def k_parts(layout: str, tp: int) -> int:
    """Into how many parts of K the matmuls of a group split."""
    if layout == "2d":
        return max(d for d in range(1, isqrt(tp) + 1) if tp % d == 0)
    return tp if layout == "row" else 1


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


def block_sizes(plan: Plan, blocks: tuple[ModelBlock, ...], shape: Group, router: Router) -> list[Size]:
    """What each block takes of SRAM, each kind lowered once."""
    known: dict[str, Size] = {}
    out: list[Size] = []
    for block in blocks:
        if block.kind not in known:
            low, _ = lower(plan, block, shape, router, max(plan.contexts))
            held = [value.held[: shape.ranks].sum(axis=1).max() for value in low.values]
            transient = (2 * residual_lines(plan.graph) + int(sum(held))) * plan.graph.batch
            known[block.kind] = Size(
                name=block.name, words=low.weights.words + low.kv_words, transient=transient
            )
        out.append(replace(known[block.kind], name=block.name))
    return out


class _Book:
    """Templates made so far, looked up by block kind, parity and routes."""

    def __init__(self, plan: Plan, rack: Rack, shape: Group) -> None:
        self.plan, self.rack, self.shape = plan, rack, shape
        self.templates: list[Template] = []
        self._by_key: dict[tuple[str, bool, int], list[int]] = {}

    def template(
        self, block: ModelBlock, chips: tuple[int, ...], after: tuple[int, ...], parity: int
    ) -> tuple[int, tuple[int, ...]]:
        """(template index, chips by rank) for a block on `chips` whose result goes to `after`."""
        moves = chips != after
        known = self._by_key.setdefault((block.kind, moves, parity), [])
        for index in known:
            router = Router(self.rack, chips + after if moves else chips)
            if router.same_as(self.templates[index].router):
                return index, tuple(router.chips)
        router = Router(self.rack, chips + after if moves else chips)
        ranks = self.shape.ranks
        targets = tuple(range(ranks, 2 * ranks)) if moves else self.shape.targets
        self.templates.append(
            template(self.plan, block, replace(self.shape, targets=targets), router, parity)
        )
        known.append(len(self.templates) - 1)
        return known[-1], tuple(router.chips)
