"""Hops: the LPU side of attention/FFN disaggregation, one scheduled program per hop in one memory image.

Each hop is scheduled by itself: its cycles run from the first line taken from the host lanes to the last one
given back. Equal layers share one template. Source: facts/afd.md section 3.3.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from compiler.assemble import machine, program_blocks
from compiler.errors import CapacityError, OptionError, advising
from compiler.graph.graph import Graph, View, width
from compiler.latency import assign_sharing, fastest
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, block_of
from compiler.lower.rules import demands_of
from compiler.memory import SramMap, sram_map
from compiler.options import PLACEMENTS, CompileOptions
from compiler.pipeline import numbers_of, one_by_one
from compiler.program.manifest import HOPS, Hop, Hops, Manifest, Message, ModelIdentity
from compiler.program.program import Call, Program
from compiler.program.store import sealed
from compiler.scheduled import Scheduled
from compiler.source import Source, captured
from compiler.split import Split, require_fit, split
from compiler.steps import Progress, Steps, quiet
from fabric.bridge import BridgeSpec
from fabric.rack import Rack


def compile_hops(
    source: Source,
    rack: Rack,
    options: CompileOptions,
    bridge: BridgeSpec,
    *,
    by: str = "role",
    role: str = "ffn",
    threshold: float | None = None,
    layers: int | None = None,
    gpus: int = 0,
    gpu_memory_bytes: int = 0,
    progress: Progress = quiet,
    dump_dir: Path | None = None,
) -> tuple[Program, Split]:
    """Compile the hops of a step for a rack behind a bridge; (the program, what was split off).

    layers: of which there is a hop, the last ones. gpus, gpu_memory_bytes: that hold what is not split off,
    and of each; see `require_fit`. dump_dir: as for `compile_program`.
    Raises CompileError (CapacityError, RoutingError, OptionError) as `compile_program` does.
    """
    _check(options)
    step = Steps(progress, dump_dir)
    graph = step("capture", captured, source)
    found = step("split", split, graph, by=by, role=role, threshold=threshold, layers=layers)
    blocks = step("blocks", hop_blocks, graph, found)
    plan, tried = _plan(graph, found, rack, bridge), ()
    needed = partial(_needed, plan, blocks, rack, options) if options.tp else None
    with advising(source.model.kv), fewer_layers(found, rack, needed):
        require_fit(found, rack, gpus, gpu_memory_bytes)
    numbers = step("number", numbers_of, rack, options)
    with fewer_layers(found, rack, needed):
        if options.tp is None:  # detours cost most of the compile time: the search goes without them
            straight = replace(plan, detours=False)
            search = step("search", fastest, straight, blocks, numbers.rack, options, progress)
            tp, best = search.found
            options, tried = replace(options, tp=tp), best.search
        scheduled = one_by_one(step, plan, blocks, numbers.rack, options).named(numbers)
    sram = step("memory", sram_map, rack, scheduled)
    model = source.model
    program = step("assemble", _assembled, model, found, rack, bridge, replace(scheduled, search=tried), sram)
    return program, found


@contextmanager
def fewer_layers(
    found: Split, rack: Rack, needed: Callable[[int], int | None] | None = None
) -> Generator[None]:
    """Where hops need more chips than the rack has, the error says with how many layers they fit.

    needed: the chips that the last N of these hops take, where they are more than there are; None: bytes say.
    """
    try:
        yield
    except CapacityError as error:
        hops = len(found.hops)
        chips = needed(hops) if needed else error.chips
        fit = min(hops * rack.chips // chips, hops - 1) if chips else 0
        while needed and fit and needed(fit):
            fit -= 1
        if fit:
            first, last = found.hops[0].name, found.hops[hops - fit - 1].name
            error.remedy = (
                f"{error.remedy.rstrip('.')}, or give --lpu-layers {fit}: {fit} of {hops} layers fit "
                f"{rack.name}{'' if needed else ' by bytes'}, and the FFNs of the others, {first} to {last}, "
                "stay on the GPUs."
            )
        raise


def _needed(
    plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, options: CompileOptions, last: int
) -> int | None:
    """The chips that the last hops take for the tp of the options, where that is more than there are."""
    try:
        assign_sharing(plan, blocks[-last:], rack, options, None)
    except CapacityError as error:
        return error.chips
    return None


def hop_blocks(graph: Graph, found: Split) -> tuple[ModelBlock, ...]:
    """The hops as blocks that take their input from the host lanes."""
    return tuple(
        block_of(
            graph,
            tuple(graph.nodes[i] for i in hop.nodes),
            hop.input,
            hop.output,
            name=hop.name,
            wire=hop.wire_down,
        )
        for hop in found.hops
    )


def _check(options: CompileOptions) -> None:
    for name, value, goes in (
        ("--objective", options.objective, ("latency",)),
        ("--placement", options.placement, PLACEMENTS),
        ("--cp", options.cp, (None, 1)),
        ("--experts", options.experts, ("exact",)),
    ):
        if value not in goes:
            choices = ", ".join(str(choice) for choice in goes if choice is not None)
            raise OptionError(
                "options",
                f"{name} {value}",
                "means nothing for hops, which run one at a time and keep no KV",
                f"Leave it out, or choose one of {choices}.",
            )


def _plan(graph: Graph, found: Split, rack: Rack, bridge: BridgeSpec) -> Plan:
    """What all hops share: a graph of their nodes alone, so that what they give back has no reader in it."""
    nowhere = View(value=-1, start=0, width=0)
    nodes = tuple(graph.nodes[i] for hop in found.hops for i in hop.nodes)
    alone = replace(graph, nodes=nodes, logits=nowhere, token=nowhere)
    return Plan(
        graph=alone,
        demands=demands_of(alone),
        chip=rack.chip,
        contexts=(HOPS,),
        capacity=0,
        cached=graph.batch,
        chunk=1,
        run=1,
        host_slot=bridge.slot_cycles(rack.chip.clock_hz),
    )


def _assembled(
    model: ModelIdentity, found: Split, rack: Rack, bridge: BridgeSpec, scheduled: Scheduled, sram: SramMap
) -> Program:
    plan = scheduled.plan
    blocks, kernels = program_blocks(scheduled)
    calls, cycles = _calls(scheduled, sram)
    hops: list[Hop] = []
    for i, (hop, call) in enumerate(zip(found.hops, calls, strict=True)):
        down, up = (width(plan.graph.values[value]) for value in (hop.input, hop.output))
        hops.append(
            Hop(
                name=hop.name,
                call=i,
                base=call.base[HOPS],
                cycles=blocks[call.block].cycles[HOPS],
                inputs=Message(rows=found.rows, width=down, wire=hop.wire_down),
                outputs=Message(rows=found.rows, width=up, wire=hop.wire_up),
                nodes=tuple(hop.nodes),
            )
        )
    manifest = Manifest(
        model=model,
        options=scheduled.options,
        search=scheduled.search,
        groups=scheduled.assignment.groups,
        rows=found.rows,
        sequences=found.rows,
        chunk=1,
        prefill=0,
        capacity=0,
        contexts=(HOPS,),
        cycles={HOPS: cycles},
        kernels=kernels,
        regions=sram.regions(),
        logits=(),
        token=None,
        vocab=0,
        body=Hops(hops=tuple(hops), bridge=replace(bridge, sources=()), host_slot=plan.host_slot),
        **machine(rack),
    )
    return sealed(Program(manifest=manifest, blocks=tuple(blocks), calls=tuple(calls)))


def _calls(scheduled: Scheduled, sram: SramMap) -> tuple[list[Call], int]:
    """A call per hop, each from where the one before it ends, and where the last one ends."""
    names = {value.index: value.name for value in scheduled.plan.graph.values}
    weight_at, kv_at = sram.weight_base.copy(), sram.kv_base
    calls: list[Call] = []
    cycle, tag = 0, 1
    for each in scheduled.calls:
        made = scheduled.templates[each.template]
        own = list(each.chips[: len(made.weight_words)])
        at = list(each.chips)
        weight_at[own] = sram.clear(own, weight_at[own], made.weight_words)
        calls.append(
            Call(
                block=each.template,
                name=each.block.name,
                chips=each.chips,
                weight_base=tuple(weight_at[at].tolist()),
                kv_base=tuple(kv_at[at].tolist()),
                shared_base=tuple(sram.weight_base[at].tolist()),
                tag=tag,
                tensors=tuple(names[each.block.params[i]] for i in made.params),
                base={HOPS: cycle},
            )
        )
        weight_at[own] += made.weight_words
        tag += made.uids + 1
        cycle += made.cycles[HOPS]
    return calls, cycle
