"""The whole compiler on one screen: step -> graph -> blocks -> stages -> templates -> program."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import numpy as np

from compiler.assemble import Use, angle_words, assemble
from compiler.blocks import ModelBlock, cut
from compiler.capture import capture
from compiler.errors import CapacityError, CompileError, OptionError
from compiler.graph import Graph
from compiler.layout import Demands
from compiler.lower import Plan, lower
from compiler.lower_attention import kv_capacity
from compiler.lowering import Group
from compiler.needs import input_lines
from compiler.options import CompileOptions
from compiler.place import contiguous, random, round_robin
from compiler.program import Program
from compiler.route import Router
from compiler.rows import Kernels
from compiler.stages import Room, Size, Stage, assign, groups_used
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
    sizes, stages = _stages(plan, blocks, rack, groups, options)
    chips = [_chips(groups, stage, size) for stage, size in zip(stages, sizes, strict=True)]
    book = _Book(plan, rack, options.layout)
    uses: list[Use] = []
    for i, block in enumerate(blocks):
        progress("schedule", i, len(blocks))
        after = (i + 1) % len(blocks)
        uses.append(book.use(block, chips[i], blocks[after], chips[after], i % 2))
    used = groups[: groups_used(stages, sizes)]
    return assemble(plan, rack, options, source.model, book.templates, uses, used)


def _chips(groups: tuple[tuple[int, ...], ...], stage: Stage, size: Size) -> tuple[int, ...]:
    """The chips of a block by rank."""
    chips = sum(groups[stage.group : stage.group + size.span], ())
    return chips[stage.turn :] + chips[: stage.turn]


def _stages(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    groups: tuple[tuple[int, ...], ...],
    options: CompileOptions,
) -> tuple[list[Size], list[Stage]]:
    """Sizes and stages of the blocks; embedding and head spread over more groups until all fits."""
    first: CapacityError | None = None
    for wider in (1, 2, 4, 8, 16):
        if wider > len(groups) or (first and options.pp is not None):
            break
        sizes, room = block_sizes(plan, blocks, rack, groups, options.layout, wider)
        try:
            return sizes, assign(sizes, room, options.pp)
        except CapacityError as error:
            first = first or error
    assert first is not None
    raise first


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


def block_sizes(
    plan: Plan,
    blocks: tuple[ModelBlock, ...],
    rack: Rack,
    groups: tuple[tuple[int, ...], ...],
    layout: str,
    wider: int,
) -> tuple[list[Size], Room]:
    """What each block takes of SRAM and on how many neighbouring groups; and the room there is.

    wider: the first and the last block (embedding and head) take at least so many groups.
    """
    tp = len(groups[0])
    capacity = rack.chip.sram_words - angle_words(plan.graph)
    known: dict[str, Size] = {}
    for block in blocks:
        span = wider if block in (blocks[0], blocks[-1]) else 1
        while block.kind not in known:
            size = _size(plan, block, rack, sum(groups[:span], ()), layout, span)
            fits = int(size.words.max()) + size.transient <= capacity
            if fits or span * 2 > len(groups):
                known[block.kind] = size
            span *= 2
    sizes = [replace(known[block.kind], name=block.name) for block in blocks]
    words = capacity - max(size.transient for size in sizes)
    return sizes, Room(rack=rack.name, groups=len(groups), tp=tp, words=words, capacity=rack.chip.sram_words)


def _size(plan: Plan, block: ModelBlock, rack: Rack, chips: tuple[int, ...], layout: str, span: int) -> Size:
    ranks = len(chips)
    shape = Group(
        ranks=ranks,
        k_parts=k_parts(layout, ranks),
        targets=tuple(range(ranks)),
        wanted=np.ones((ranks, 1), bool),
    )
    low, _ = lower(plan, block, shape, Router(rack, chips), max(plan.contexts))
    held = sum(int(value.held[:ranks].sum(axis=1).max()) for value in low.values)
    transient = (2 * residual_lines(plan.graph) + held) * plan.graph.batch
    return Size(name=block.name, words=low.weights.words + low.kv_words, transient=transient, span=span)


class _Book:
    """Templates made so far, looked up by block kind, parity and routes."""

    def __init__(self, plan: Plan, rack: Rack, layout: str) -> None:
        self.plan, self.rack, self.layout = plan, rack, layout
        self.templates: list[Template] = []
        self._needs: dict[tuple[str, int], np.ndarray] = {}
        self._by_key: dict[tuple[str, int, tuple[int, ...], bytes, int], list[int]] = {}

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
        wanted = self._wanted(reader, len(after))
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
            self._needs[key] = input_lines(self.plan.graph, self.plan.demands, reader, ranks, parts)
        return self._needs[key]
