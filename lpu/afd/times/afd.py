"""Mode afd in time: attention on the GPUs, FFN hops on the LPUs, micro-batches in ping-pong.

The times of hops are cycles of their programs; GPUs and links are modelled.
Source: facts/afd.md sections 0, 1 and 3.3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from compiler.hops import compile_hops
from compiler.program.program import Program
from compiler.split import Split
from fabric.rack import Rack
from lpu.afd.machines import alone, best
from lpu.afd.question import Question, Timed
from lpu.afd.report import Figure
from lpu.afd.times.hops import HopTimes, Pace, SlotRule, check_micro_batches, hop_times, in_one, pace
from lpu.afd.trace import Event
from lpu.afd.turn import Turn
from lpu.gpu.families.registry import layers_of
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare
from lpu.gpu.units import PS_PER_SECOND, Part, cycles_ps, picoseconds
from lpu.inputs.model import of_micro_batch
from lpu.pingpong import closed_forms
from lpu.pingpong.stages import RESOURCES
from lpu.report.words import EXACT

VENDOR_TOKENS, VENDOR_SPEED = 400_000, 400
"""Source: NVIDIA's projection of 35 x TPS/MW at 400 tokens/s a user (facts/afd.md section 6)."""
SIDES = {"attention": "GPUs", "down": "bridge", "ffn": "LPUs", "up": "bridge"}
BASES = {"attention": "modelled", "down": "modelled", "ffn": EXACT, "up": "modelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """A model whose FFNs are hops on the LPUs: their program and times, and the GPUs for the rest."""

    program: Program
    split: Split
    hops: HopTimes
    gpus: GpuShare
    micro_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What is on which side. micro_batches: None: 2 if the batch is even, else 1.

    split, threshold: as for `compiler.split.split`. layers: whose FFN is on LPUs, the last ones; None: all.
    """

    micro_batches: int | None = None
    split: str = "role"
    threshold: float | None = None
    layers: int | None = None


def divided(asked: Question, how: How) -> Divided:
    """The hops compiled and checked, the GPUs dealt as is best for the last turn's attention.

    Raises CompileError or HazardError.
    """
    request = asked.request
    m = how.micro_batches or (2 if request.batch % 2 == 0 else 1)
    rows, length = check_micro_batches(request.batch, m), request.middle(request.turns - 1)
    every = asked.shares()
    kept = every[0].config.layers - (how.layers or every[0].config.layers)
    gpus = best(every, request, lambda one: sum(one.before_hops(rows, length, kept)))
    program, found = compile_hops(
        of_micro_batch(asked.model, rows).source(),
        asked.machines.rack,
        asked.options,
        asked.machines.bridge,
        by=how.split,
        threshold=how.threshold,
        layers=how.layers,
        gpus=gpus.gpus if gpus.shares_experts else gpus.pool.gpus,
        gpu_memory_bytes=gpus.pool.memory_bytes // gpus.pool.gpus,
        progress=asked.progress,
    )
    hops = hop_times(asked.checked(program), found)
    return Divided(program=program, split=found, hops=hops, gpus=gpus, micro_batches=m)


def timed(
    asked: Question,
    how: How,
    rule: SlotRule,
    target: int | None,
) -> Timed:
    """The whole mode in time. target: picoseconds that a token may take, to warn of the dead zone."""
    request = asked.request
    there = divided(asked, how)
    program, found, hops, gpus = there.program, there.split, there.hops, there.gpus
    length = request.middle(request.turns - 1)
    made, paces = turns(request, gpus, hops, there.micro_batches, rule, alone(asked.shares(), request))
    last = paces[-1]
    return Timed(
        program=program,
        gpus=gpus,
        rows=last.rows,
        turns=made,
        layer=layer_parts(gpus, hops, last, length),
        figures=_figures(request, last, hops, gpus),
        events=tuple(events(last)),
        machine=(("split", _split_line(found, gpus, request, asked.machines.rack)),),
        boundary=last.boundary,
        warnings=(*warnings(last, request.batch, target), *beside_vendor(gpus, last, length)),
    )


def turns(
    request: Request,
    share: GpuShare,
    hops: HopTimes,
    micro_batches: int,
    rule: SlotRule,
    alone: int | None = None,
) -> tuple[tuple[Turn, ...], tuple[Pace, ...]]:
    """The turns of a request in time, each with its pace at the mean length of its KV."""
    made: list[Turn] = []
    paces: list[Pace] = []
    for number in range(request.turns):
        before, brings = request.before(number), request.brings(number)
        reused = max(0, before - 1)  # all KV is on the GPUs; the last token of a turn was never taken
        prefill = share.prefill(before + brings - reused, reused, request.batch)
        found = pace(share, hops, request.batch, micro_batches, request.middle(number), rule, alone)
        steps = request.batch * (request.new_tokens - 1) * len(hops.cycles)
        made.append(
            Turn(
                number=number,
                first=(
                    Part(name="queue", picoseconds=picoseconds(request.queue_seconds), basis="assumed"),
                    Part(name="prefill", picoseconds=prefill, basis=share.basis),
                ),
                step=(
                    Part(name="ping-pong step", picoseconds=int(found.period), basis=share.basis),
                    Part(name="missed slots", picoseconds=found.missed, basis="modelled"),
                ),
                tokens=request.new_tokens,
                reused=reused,
                crossed={
                    "activations_down": steps * hops.down_bytes,
                    "activations_up": steps * hops.up_bytes,
                },
            )
        )
        paces.append(found)
    return tuple(made), tuple(paces)


def layer_parts(share: GpuShare, hops: HopTimes, found: Pace, kv_len: int) -> tuple[Part, ...]:
    """The last layer of one micro-batch, operator by operator, in the order that it goes through."""
    gpu = share.attention(found.rows, kv_len)
    parts = [Part(name=op.name, picoseconds=picoseconds(op.seconds), basis=op.basis) for op in gpu.ops]
    slack = cycles_ps(found.boundary.boundary.slack_cycles, hops.clock_hz)
    layer = found.plan.layers[-1]
    parts += [
        Part(name="down, latency", picoseconds=share.latency, basis="assumed"),
        Part(name="down, bytes", picoseconds=layer.down, basis="modelled"),
        Part(name="wait for the slot", picoseconds=slack, basis="modelled"),
        Part(name="FFN hop on the LPUs", picoseconds=layer.ffn, basis=EXACT),
        Part(name="up, latency", picoseconds=share.latency, basis="assumed"),
        Part(name="up, bytes", picoseconds=layer.up, basis="modelled"),
    ]
    return tuple(parts)


def warnings(found: Pace, batch: int, target: int | None = None) -> list[str]:
    """What speaks against dividing the model here. target: picoseconds that a token may take."""
    out: list[str] = []
    if found.period >= found.alone:
        out.append(
            f"AFD loses: {float(found.period) / 1e9:.3f} ms a token against {found.alone / 1e9:.3f} ms "
            f"on the GPUs alone, at batch {batch}; {found.binding} sets its pace"
        )
    if target is not None:
        layers = found.plan.layers
        slot = closed_forms.dead_zone_slot(target, Fraction(1), 0, len(layers))
        out += list(closed_forms.dead_zone(in_one(layers[-1]), int(slot)))
    return out


def beside_vendor(gpus: GpuShare, found: Pace, kv_len: int) -> tuple[str, ...]:
    """Where a model with experts misses what the vendor projects at its operating point."""
    layers = layers_of(gpus.config)
    sparse = any(layers.mixture(gpus.config, kind) for kind in layers.kinds(gpus.config))
    speed = PS_PER_SECOND / found.period
    if not sparse or kv_len < VENDOR_TOKENS or speed >= VENDOR_SPEED:
        return ()
    return (
        f"the vendor projects {VENDOR_SPEED} tokens/s a user for a 2T mixture at {VENDOR_TOKENS:,} tokens; "
        f"this GPU model, whose kernels are launched one after another, gives {float(speed):,.0f} here",
    )


def events(pace: Pace) -> Iterator[Event]:
    """One step of all micro-batches through all layers, from an empty pipeline."""
    line = pace.timeline
    columns = (line.resource, line.layer, line.micro_batch, line.start, line.end)
    for resource, layer, micro_batch, begin, end in zip(*(c.tolist() for c in columns), strict=True):
        stage = RESOURCES[resource]
        name = f"layer {layer}" if layer < len(pace.plan.layers) else "head"
        text = f"{name} micro-batch {micro_batch}"
        yield Event(SIDES[stage], stage, text, begin, end, BASES[stage])


def _split_line(split: Split, gpus: GpuShare, request: Request, rack: Rack) -> str:
    """What lies where, and the room for it."""
    sram = rack.chips * rack.chip.sram_bytes
    weights = gpus.pool.weight_bytes(gpus.config)
    kv = gpus.pool.kv_bytes(gpus.config, gpus.rows(request.batch), request.context, gpus.kv)
    whose = "its part of the" if gpus.shares_experts else "all"
    kept = gpus.config.layers - len(split.hops)
    stay = f" (the FFNs of layers 0 to {kept - 1} stay on the GPUs)" if kept else ""
    return (
        f"{len(split.hops)} hops{stay}, {split.weight_bytes / 1e9:.1f} GB of weights on LPUs of "
        f"{sram / 1e9:.1f} GB; a replica of GPUs holds {whose} weights ({weights / 1e9:.1f} GB, it prefills "
        f"too) and {kv / 1e9:.1f} GB of KV in {gpus.pool.memory_bytes / 1e9:.1f} GB"
    )


def _estimate(pace: Pace) -> tuple[Figure, ...]:
    if pace.estimate is None:
        return ()
    name = "step, aiconfigurator's form"
    return (Figure(name=name, value=pace.estimate / 1e9, unit="ms", basis="modelled"),)


def _figures(request: Request, pace: Pace, hops: HopTimes, gpus: GpuShare) -> tuple[Figure, ...]:
    """Names as aiconfigurator has them, where it has them."""
    tp, basis = gpus.pool.gpus, gpus.basis
    line, m = pace.timeline, pace.plan.micro_batches
    attention, ffn = (sum(one.times[i] for one in pace.plan.layers) for i in (0, 2))
    crossing = len(hops.cycles) * request.batch
    return (
        Figure(name="balance t_f / t_a", value=ffn / attention, unit="", basis=basis),
        Figure(name="bubble", value=100 * float(line.bubble_share), unit="% of a step", basis=basis),
        Figure(name="exposed communication", value=pace.exposed / 1e9, unit="ms a step", basis="modelled"),
        Figure(name="set by", value=pace.binding, unit="", basis="modelled"),
        *_estimate(pace),
        Figure(name="GPUs alone", value=pace.alone / 1e9, unit="ms a token", basis=basis),
        Figure(name="link down", value=crossing * hops.down_bytes, unit="bytes a step", basis=EXACT),
        Figure(name="link up", value=crossing * hops.up_bytes, unit="bytes a step", basis=EXACT),
        Figure(
            name="link up, copies",
            value=crossing * hops.up_bytes * tp,
            unit="bytes a step: one for each GPU of a replica, made by the switch",
            basis="assumed",
        ),
        Figure(name="wires", value=f"{hops.wire_down} down, {hops.wire_up} up", unit="", basis=EXACT),
        Figure(name="LPU cycles per step", value=m * sum(hops.cycles), unit="cycles", basis=EXACT),
    )
