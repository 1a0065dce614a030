"""The whole compiler on one screen: step -> graph -> blocks -> stages -> templates -> program."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from math import isqrt
from typing import Any

import numpy as np

from compiler.blocks import ModelBlock, cut
from compiler.capture import capture
from compiler.errors import CapacityError, CompileError, OptionError
from compiler.graph import Graph
from compiler.isa import COLUMNS, TAGS, Columns, ceil_div
from compiler.layout import Demands
from compiler.lower import Group
from compiler.lower_attention import kv_capacity
from compiler.options import CompileOptions
from compiler.place import contiguous, random, round_robin
from compiler.program import ANGLES, LOADS, Block, Call, Loads, Program, digest
from compiler.route import Router
from compiler.rows import Kernels
from compiler.stages import Size, assign
from compiler.template import Plan, Template, lowered, residual_lines, template
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
        sizes, groups=len(groups), pp=options.pp, capacity=rack.chip.sram_words, shared=shared, tp=tp, rack=rack.name
    )
    book = _Book(plan, rack, shape)
    calls: list[tuple[ModelBlock, int, tuple[int, ...]]] = []
    for i, block in enumerate(blocks):
        progress("schedule", i, len(blocks))
        after = groups[stages[(i + 1) % len(blocks)]]
        which, chips = book.template(block, groups[stages[i]], after, i % 2)
        calls.append((block, which, chips))
    return _assemble(source, graph, plan, rack, options, book.templates, calls, groups[: stages[-1] + 1])


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
            "options", f"--tp {tp}", f"does not divide the {rack.chips} chips of {rack.name}",
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


def angle_params(graph: Graph) -> list[int]:
    """The RoPE tables of a graph, in order of first use."""
    found: list[int] = []
    for node in graph.nodes:
        if node.op == "rope" and node.inputs[1].value not in found:
            found.append(node.inputs[1].value)
    if len(found) > 1:
        raise CompileError("lower", "rope", f"{len(found)} different angle tables", "Share one table in the model.")
    return found


def angle_words(graph: Graph) -> int:
    """Words of the RoPE table on a chip."""
    total = 0
    for value in angle_params(graph):
        positions, _, half = graph.values[value].shape
        total += positions * int(ceil_div(4 * half, 320))
    return total


def block_sizes(plan: Plan, blocks: tuple[ModelBlock, ...], shape: Group, router: Router) -> list[Size]:
    """What each block takes of SRAM, each kind lowered once."""
    known: dict[str, Size] = {}
    out: list[Size] = []
    for block in blocks:
        if block.kind not in known:
            low, _ = lowered(plan, block, shape, router, max(plan.contexts))
            held = [value.held[: shape.ranks].sum(axis=1).max() for value in low.values]
            transient = (2 * residual_lines(plan.graph) + int(sum(held))) * plan.graph.batch
            known[block.kind] = Size(name=block.name, words=low.weights.words + low.kv_words, transient=transient)
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
        self.templates.append(template(self.plan, block, replace(self.shape, targets=targets), router, parity))
        known.append(len(self.templates) - 1)
        return known[-1], tuple(router.chips)


def _assemble(
    source: Source,
    graph: Graph,
    plan: Plan,
    rack: Rack,
    options: CompileOptions,
    templates: list[Template],
    uses: list[tuple[ModelBlock, int, tuple[int, ...]]],
    groups: tuple[tuple[int, ...], ...],
) -> Program:
    batch = graph.batch
    transient, kv, weights = (np.zeros(rack.chips, np.int64) for _ in range(3))
    for chips in groups:
        weights[list(chips)] += angle_words(graph)
    for _, which, chips in uses:
        made = templates[which]
        touched = list(chips[: len(made.transient_words)])
        transient[touched] = np.maximum(transient[touched], made.transient_words)
    transient = ceil_div(transient, batch) * batch
    blocks, calls = _angle_calls(graph, groups, plan.contexts)
    kv_at, weight_at = np.zeros(rack.chips, np.int64), weights.copy()
    cycle = dict.fromkeys(plan.contexts, 0)
    tag, first = 1, len(blocks)
    names = {value.index: value.name for value in graph.values}
    drafts: list[dict[str, Any]] = []
    for block, which, chips in uses:
        made = templates[which]
        own = list(chips[: len(made.weight_words)])
        rest = [0] * (len(chips) - len(own))
        drafts.append(
            {
                "block": first + which,
                "name": block.name,
                "chips": chips,
                "kv": [int(kv_at[c]) for c in own] + rest,
                "weight": [int(weight_at[c]) for c in own] + rest,
                "tag": tag,
                "tensors": tuple(names[block.params[i]] for i in made.params),
                "base": dict(cycle),
            }
        )
        kv_at[own] += made.kv_words
        weight_at[own] += made.weight_words
        tag += made.uids
        cycle = {context: cycle[context] + made.cycles[context] for context in cycle}
    kv_base = transient
    weight_base = kv_base + kv_at
    used = weight_base + weight_at
    worst = int(np.argmax(used))
    if used[worst] > rack.chip.sram_words:
        raise CapacityError(
            "allocate", f"chip {worst}",
            f"needs {int(used[worst]) * 320 / 1e6:.1f} MB, a chip has {rack.chip.sram_words * 320 / 1e6:.1f} MB",
            "Raise --tp or --pp, or shorten the context or the batch.",
        )
    for draft in drafts:
        chips = draft["chips"]
        calls.append(
            Call(
                block=draft["block"],
                name=draft["name"],
                chips=chips,
                weight_base=tuple(int(weight_base[c]) + o for c, o in zip(chips, draft["weight"], strict=True)),
                kv_base=tuple(int(kv_base[c]) + o for c, o in zip(chips, draft["kv"], strict=True)),
                shared_base=tuple(int(weight_base[c]) for c in chips),
                tag=draft["tag"],
                tensors=draft["tensors"],
                base=draft["base"],
            )
        )
    for index, call in enumerate(calls[: len(groups)]):
        base = tuple(int(weight_base[c]) for c in call.chips)
        calls[index] = replace(call, weight_base=base, kv_base=base, shared_base=base)
    blocks += [
        Block(name=_first_name(uses, i), columns=t.columns, cycles=t.cycles, loads=t.loads, maps=t.maps, slots=t.slots)
        for i, t in enumerate(templates)
    ]
    last, chips = templates[uses[-1][1]], uses[-1][2]
    assert last.token is not None
    regions = np.stack([np.zeros_like(transient), transient, kv_base, kv_at, weight_base, weight_at], axis=-1)
    inputs = {"model": source.model, "rack": rack.to_manifest(), "options": asdict(options), "contexts": plan.contexts}
    manifest: dict[str, Any] = {
        "schema": "lpu-program/1",
        "model": source.model,
        "options": asdict(options),
        "groups": [list(g) for g in groups],
        "versions": {"lpu-emulator": version("lpu-emulator")},
        "inputs": hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
        "rows": batch,
        "contexts": list(plan.contexts),
        "capacity": plan.capacity,
        "kernels": plan.kernels.items,
        "regions": regions.reshape(-1, 3, 2).tolist(),
        "logits": [[chips[rank], address, line] for rank, address, line in last.logits],
        "token": [chips[last.token[0]], last.token[1]],
        "vocab": graph.values[graph.logits.value].shape[-1],
        "cycles": {str(context): cycles for context, cycles in cycle.items()},
        **rack.to_manifest(),
    }
    program = Program(manifest=manifest, blocks=tuple(blocks), calls=tuple(calls))
    manifest["digest"] = digest(program)
    return program


def _first_name(uses: list[tuple[ModelBlock, int, tuple[int, ...]]], which: int) -> str:
    return next(block.name for block, used, _ in uses if used == which)


def _angle_calls(
    graph: Graph, groups: tuple[tuple[int, ...], ...], contexts: tuple[int, ...]
) -> tuple[list[Block], list[Call]]:
    """The RoPE table as a block without rows, called once per group."""
    params = angle_params(graph)
    ranks = len(groups[0])
    rank = np.arange(ranks if params else 0)
    words = angle_words(graph)
    fields = {name: np.zeros_like(rank) for name in LOADS}
    fields |= {"chip": rank, "addr": 3 << 40 | 0 * rank, "words": words + 0 * rank, "kind": ANGLES + 0 * rank}
    fields |= {"lines": 1 + 0 * rank, "tag": 0 * rank}
    empty = Columns(**{name: np.zeros(0, np.int64) for name in COLUMNS + TAGS})
    block = Block(
        name="angles",
        columns=dict.fromkeys(contexts, empty),
        cycles=dict.fromkeys(contexts, 0),
        loads=Loads(**fields),
        maps=(),
        slots=((-1, -1),) if params else (),
    )
    names = tuple(graph.values[value].name for value in params)
    zeros = (0,) * ranks
    calls = [
        Call(
            block=0, name="angles", chips=chips, weight_base=zeros, kv_base=zeros, shared_base=zeros, tag=0,
            tensors=names, base=dict.fromkeys(contexts, 0),
        )
        for chips in groups
    ]
    return [block], calls
