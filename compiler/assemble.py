"""Assembly: templates -> calls of them with chips, bases and cycles, SRAM regions, the manifest."""

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from compiler.errors import OptionError
from compiler.lower.block import Plan
from compiler.lower.rope_table import angle_block, angle_params, angle_words
from compiler.lower.rows import Kernels
from compiler.memory import SramMap
from compiler.program.instructions.cold import ColdTileKernel
from compiler.program.instructions.experts import SlotsKernel
from compiler.program.isa import Columns, Kernel, ceil_div, is_transfer
from compiler.program.manifest import (
    Broken,
    LevelWiring,
    Link,
    LogitsLine,
    Manifest,
    ModelIdentity,
    Place,
    Step,
    WaveContext,
    Waves,
)
from compiler.program.program import Block, Call, Program
from compiler.program.store import sealed
from compiler.scheduled import Scheduled
from fabric.host import RESERVOIR
from fabric.rack import Damage, Rack


def assemble(
    rack: Rack, model: ModelIdentity, scheduled: Scheduled, sram: SramMap, prefill: int = 0
) -> Program:
    """The program of scheduled blocks one after another.

    prefill: tokens of a chunk where there is a prefill program with the same memory image.
    """
    plan, groups, graph = scheduled.plan, scheduled.assignment.groups, scheduled.plan.graph
    blocks, kernels = program_blocks(scheduled)
    if plan.slots is not None and not any(isinstance(one, SlotsKernel) for one in kernels):
        subject, why = f"--experts {scheduled.options.experts}", f"{model.name or 'the model'} has no experts"
        raise OptionError("options", subject, why, "Leave it out.")
    _has_cold(scheduled, kernels)
    calls, cycles = _calls(plan, scheduled, sram)
    last, chips = scheduled.templates[scheduled.calls[-1].template], scheduled.calls[-1].chips
    assert last.token is not None
    body = _waves(scheduled, sram, calls[-1].tag + last.uids + 1)
    manifest = Manifest(
        model=model,
        options=scheduled.options,
        search=scheduled.search,
        groups=groups,
        rows=graph.batch,
        sequences=plan.cached,
        chunk=plan.chunk,
        prefill=prefill,
        capacity=plan.capacity,
        contexts=plan.contexts,
        cycles=cycles,
        kernels=kernels,
        regions=sram.regions(),
        logits=tuple(LogitsLine(chips[rank], address, line) for rank, address, line in last.logits),
        token=Place(chips[last.token[0]], last.token[1]),
        vocab=graph.values[graph.logits.value].shape[-1],
        body=body,
        **_beside(machine(rack), plan),
    )
    angles = angle_block(graph, len(groups[0]), plan.contexts)
    return sealed(Program(manifest=manifest, blocks=(angles, *blocks), calls=tuple(calls)))


def _has_cold(scheduled: Scheduled, kernels: tuple[Kernel, ...]) -> None:
    """Raise OptionError if experts were to lie in DDR5 and none do."""
    share = scheduled.plan.cold
    if not share or any(isinstance(one, ColdTileKernel) for one in kernels):
        return
    most = max((one.held for one in kernels if isinstance(one, SlotsKernel)), default=0)
    reason = f"is none of the {most} experts of a table" if most else "the model has no experts"
    remedy = f"Give {1 / most:.4g} or more." if most else "Leave it out."
    raise OptionError("options", f"--cold {share:g}", reason, remedy)


def _beside(said: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """What a manifest says of the machine, with the DDR5 that early KV and cold experts lie in."""
    return said | {"sources": said["sources"] + RESERVOIR.sources} if plan.resident or plan.cold else said


def machine(rack: Rack) -> dict[str, Any]:
    """What a manifest says of the rack, and of the release, by field."""
    links, damage = rack.links, rack.damage
    numbers = (links.a, links.b, links.lanes, links.hop_cycles, links.slot_cycles)
    return {
        "rack": rack.name,
        "chips": rack.chips,
        "chip": replace(rack.chip, sources=()),
        "forward_cycles": rack.forward_cycles,
        "links": tuple(Link(*row) for row in zip(*(column.tolist() for column in numbers), strict=True)),
        "levels": tuple(LevelWiring(level.name, level.kind, level.groups) for level in rack.levels),
        "sources": rack.chip.sources + rack.sources,
        "broken": None if damage is None else broken_of(damage),
        "versions": {"lpu-emulator": version("lpu-emulator")},
    }


def broken_of(damage: Damage) -> Broken:
    """What a manifest says of the damage of its rack."""
    faults = tuple(str(one) for one in damage.faults)
    return Broken(faults=faults, lost=damage.lost, parent=damage.parent)


def program_blocks(scheduled: Scheduled) -> tuple[list[Block], tuple[Kernel, ...]]:
    """The templates as blocks of one program, and the kernels that their rows index, by first use."""
    names = {call.template: call.block.name for call in reversed(scheduled.calls)}
    kernels = Kernels()
    blocks: list[Block] = []
    for i, made in enumerate(scheduled.templates):
        columns = {context: renumbered(rows, made.kernels, kernels) for context, rows in made.columns.items()}
        blocks.append(
            Block(
                name=names[i],
                columns=columns,
                cycles=made.cycles,
                loads=made.loads,
                maps=made.maps,
                slots=made.slots,
            )
        )
    return blocks, tuple(kernels.items)


def renumbered(columns: Columns, own: tuple[Kernel, ...], kernels: Kernels) -> Columns:
    """The rows with their kernels numbered as in `kernels`, to which the new ones are added."""
    compute = ~is_transfer(columns.op)
    used, first = np.unique(columns.aux[compute], return_index=True)
    number = np.full(len(own), -1)
    for aux in used[np.argsort(first)].tolist():
        number[aux] = kernels.index(own[aux])
    aux = columns.aux.copy()
    aux[compute] = number[aux[compute]]
    return replace(columns, aux=aux)


def _waves(scheduled: Scheduled, sram: SramMap, tags: int) -> Step | Waves:
    """What the manifest says of waves, or that a step runs alone.

    A user may step again when its last step has ended; the chunks of a prompt follow each other.
    """
    waves, chunk = scheduled.waves, scheduled.plan.chunk
    if waves is None:
        return Step()
    contexts = {
        context: WaveContext(
            interval=interval,
            turn=1 if chunk > 1 else max(sram.users, int(ceil_div(waves.cycles[context], interval))),
            bound=waves.bound[context],
            bound_of=str(waves.bound_of[context]),
        )
        for context, interval in waves.interval.items()
    }
    return Waves(
        users=sram.users,
        arenas=tuple(waves.arenas.tolist()),
        arena_words=tuple(sram.transient.tolist()),
        user_words=tuple(sram.kv.tolist()),
        tags=tags,
        contexts=contexts,
    )


def _calls(plan: Plan, scheduled: Scheduled, sram: SramMap) -> tuple[list[Call], dict[int, int]]:
    """The calls in order, and the cycle at which the last one ends, per bucket."""
    waves = scheduled.waves
    names = {value.index: value.name for value in plan.graph.values}
    cycle = dict.fromkeys(plan.contexts, 0)
    shared = sram.weight_base.copy()
    kv_at = sram.kv_base.copy()
    weight_at = sram.weight_base.copy()
    calls: list[Call] = []

    def placed(block: int, name: str, chips: tuple[int, ...], tag: int, tensors: tuple[str, ...]) -> Call:
        at = list(chips)
        return Call(
            block=block,
            name=name,
            chips=chips,
            weight_base=tuple(weight_at[at].tolist()),
            kv_base=tuple(kv_at[at].tolist()),
            shared_base=tuple(shared[at].tolist()),
            tag=tag,
            tensors=tensors,
            base=dict(cycle),
        )

    tables = tuple(names[value] for value in angle_params(plan.graph))
    for chips in scheduled.assignment.groups:
        own = list(chips)
        weight_at[own] = sram.clear(own, weight_at[own], angle_words(plan.graph))
        shared[own] = weight_at[own]
        calls.append(placed(0, "angles", chips, 0, tables))
        weight_at[list(chips)] += angle_words(plan.graph)
    tag = 1
    for i, call in enumerate(scheduled.calls):
        made = scheduled.templates[call.template]
        cycle = cycle if waves is None else waves.bases[i]
        tensors = tuple(names[call.block.params[i]] for i in made.params)
        kept = list(call.chips[: len(made.kv_words)])
        own = list(call.chips[: len(made.weight_words)])
        weight_at[own] = sram.clear(own, weight_at[own], made.weight_words)
        calls.append(placed(1 + call.template, call.block.name, call.chips, tag, tensors))
        kv_at[kept] += made.kv_words
        weight_at[own] += made.weight_words
        tag += made.uids
        cycle = {context: count + made.cycles[context] for context, count in cycle.items()}
    return calls, cycle if waves is None else waves.cycles
