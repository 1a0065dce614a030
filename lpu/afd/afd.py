"""GPUs and LPUs together: a request in one of three modes, compiled, timed, and run if asked.

The LPU side is a scheduled program in every mode, so its part of a time is exact; the GPUs' part is modelled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

from compiler.hops import compile_hops
from compiler.pipeline import compile_program
from compiler.program.program import Program
from compiler.split import Split
from fabric.rack import Rack
from lpu.afd import draft as afd_draft
from lpu.afd import hops as afd_hops
from lpu.afd import pd as afd_pd
from lpu.afd import trace as afd_trace
from lpu.afd.hops import HopTimes, Pace
from lpu.afd.pd import Policy
from lpu.afd.report import AfdReport, Figure
from lpu.afd.setup import AfdOptions, Beside, alone, best, hop_times, lpus_of
from lpu.afd.turn import Turn
from lpu.check.check import require
from lpu.folder import Progress, check_program, quiet
from lpu.gpu.request import Part, Request, picoseconds
from lpu.gpu.share import GpuShare
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel, of_micro_batch
from lpu.report.confidence import by_confidence


def afd(
    model: OpenModel,
    request: Request,
    beside: Beside,
    options: AfdOptions,
    drafter: OpenModel | None = None,
    progress: Progress = quiet,
) -> tuple[AfdReport, Program]:
    """A request in time, and the program of the LPUs. model: for the batch and the context of the request.

    Raises FileError for a drafter that does not go with the model, CompileError where a side does not fit,
    HazardError for a program that breaks a rule.
    """
    if options.mode == "draft":
        _check_drafter(model, drafter)
    every = beside.shares(model)
    if options.mode == "pd":
        return _pd(model, request, beside, every, options, progress)
    if options.mode == "afd":
        return _afd(model, request, beside, every, options, progress)
    assert drafter is not None
    return _draft(drafter, request, beside, every, options, progress)


def _check_drafter(model: OpenModel, drafter: OpenModel | None) -> None:
    if drafter is None:
        raise FileError("options: --mode draft needs a small model. Give one with --drafter.")
    if drafter.vocab != model.vocab:
        raise FileError(
            f"options: --drafter {drafter.name} has a vocabulary of {drafter.vocab} tokens, {model.name} one "
            f"of {model.vocab}. Give two models of one tokenizer."
        )


def _checked(program: Program, options: AfdOptions, progress: Progress) -> Program:
    if options.check:
        for report in check_program(program, progress).values():
            require(report)
    return program


def _pd(
    model: OpenModel,
    request: Request,
    beside: Beside,
    every: Sequence[GpuShare],
    options: AfdOptions,
    progress: Progress,
) -> tuple[AfdReport, Program]:
    policy = cast(Policy, options.policy)
    first = afd_pd.work(request, policy, 0)
    gpus = best(every, request, lambda one: one.prefill(first.prefilled, first.prefix, request.batch))
    program = _checked(
        compile_program(model.source(), beside.rack, options.compile, progress), options, progress
    )
    turns, handovers = afd_pd.turns(request, gpus, program, policy, options.check)
    todo = afd_pd.work(request, policy, request.turns - 1)
    ops = gpus.pool.prefill_layer(
        gpus.config, todo.prefilled, todo.prefix + todo.returned, gpus.rows(request.batch), gpus.kv
    ).ops
    slot = handovers[-1].ends[-1] - handovers[-1].begins[-1]
    layer = (
        *(Part(name=op.name, picoseconds=picoseconds(op.seconds), basis=op.basis) for op in ops),
        Part(name="KV slot on the LPUs, behind it", picoseconds=slot, basis="exact"),
    )
    figures = (
        Figure(
            name="LPU cycles per token",
            value=max(map(int, program.manifest.cycles.values())),
            unit="cycles, longest bucket",
            basis="exact",
        ),
        Figure(
            name="hand-over hidden",
            value=100 * handovers[-1].hidden,
            unit="% of its time",
            basis="modelled",
        ),
        Figure(name="KV of decoded tokens", value=policy, unit="", basis="exact"),
    )
    events = afd_trace.of_handover(handovers[-1], turns[-1].first[-1].picoseconds)
    return _report(
        "pd", model, request, beside, gpus, program, turns, layer, figures, events=tuple(events)
    ), program


def _afd(
    model: OpenModel,
    request: Request,
    beside: Beside,
    every: Sequence[GpuShare],
    options: AfdOptions,
    progress: Progress,
) -> tuple[AfdReport, Program]:
    length = request.middle(request.turns - 1)
    m = options.micro_batches or (2 if request.batch % 2 == 0 else 1)
    rows = afd_hops.check_micro_batches(request.batch, m)
    gpus = best(every, request, lambda one: picoseconds(one.attention(rows, length).seconds))
    program, split = compile_hops(
        of_micro_batch(model, rows).source(),
        beside.rack,
        options.compile,
        beside.bridge,
        by=options.by,
        threshold=options.threshold,
        gpus=gpus.pool.gpus,
        gpu_memory_bytes=gpus.pool.memory_bytes // gpus.pool.gpus,
        progress=progress,
    )
    hops = hop_times(_checked(program, options, progress), split)
    by_themselves = alone(every, request)
    turns, paces = afd_hops.turns(request, gpus, hops, m, options.dam, by_themselves)
    last = paces[-1]
    report = _report(
        "afd",
        model,
        request,
        beside,
        gpus,
        program,
        turns,
        afd_hops.layer_parts(gpus, hops, last, length),
        _afd_figures(request, last, hops, gpus),
        events=tuple(afd_trace.of_pace(last)),
        pace=last,
        target=options.target,
        more=(("split", _split_line(split, gpus, request, beside.rack)),),
    )
    return report, program


def _split_line(split: Split, gpus: GpuShare, request: Request, rack: Rack) -> str:
    """What lies where, and the room for it."""
    sram = rack.chips * rack.chip.sram_bytes
    weights = gpus.pool.weight_bytes(gpus.config)
    kv = gpus.pool.kv_bytes(gpus.config, gpus.rows(request.batch), request.context, gpus.kv)
    return (
        f"{len(split.hops)} hops, {split.weight_bytes / 1e9:.1f} GB of weights on LPUs of "
        f"{sram / 1e9:.1f} GB; a replica of GPUs holds all weights ({weights / 1e9:.1f} GB, it prefills "
        f"too) and {kv / 1e9:.1f} GB of KV in {gpus.pool.memory_bytes / 1e9:.1f} GB"
    )


def _afd_figures(request: Request, pace: Pace, hops: HopTimes, gpus: GpuShare) -> tuple[Figure, ...]:
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
        Figure(name="step, aiconfigurator's form", value=pace.estimate / 1e9, unit="ms", basis="modelled"),
        Figure(name="GPUs alone", value=pace.alone / 1e9, unit="ms a token", basis=basis),
        Figure(name="link down", value=crossing * hops.down_bytes, unit="bytes a step", basis="exact"),
        Figure(name="link up", value=crossing * hops.up_bytes, unit="bytes a step", basis="exact"),
        Figure(
            name="link up, copies",
            value=crossing * hops.up_bytes * tp,
            unit="bytes a step: one for each GPU of a replica, made by the switch",
            basis="assumed",
        ),
        Figure(name="wires", value=f"{hops.wire_down} down, {hops.wire_up} up", unit="", basis="exact"),
        Figure(name="LPU cycles per step", value=m * sum(hops.cycles), unit="cycles", basis="exact"),
    )


def _draft(
    drafter: OpenModel,
    request: Request,
    beside: Beside,
    every: Sequence[GpuShare],
    options: AfdOptions,
    progress: Progress,
) -> tuple[AfdReport, Program]:
    length, rows = request.middle(request.turns - 1), options.drafting.drafts + 1
    gpus = best(every, request, lambda one: one.verify(request.batch, rows, length))
    program = _checked(
        compile_program(drafter.source(), beside.rack, options.compile, progress), options, progress
    )
    turns, rounds = afd_draft.turns(request, gpus, program, options.drafting)
    figures = (
        Figure(name="drafts a round", value=options.drafting.drafts, unit="tokens", basis="exact"),
        Figure(name="acceptance", value=options.drafting.acceptance, unit="", basis="assumed"),
        Figure(name="tokens a round", value=float(options.drafting.tokens), unit="expected", basis="assumed"),
        Figure(
            name="LPU cycles per draft",
            value=max(map(int, program.manifest.cycles.values())),
            unit="cycles",
            basis="exact",
        ),
        Figure(
            name="GPUs alone",
            value=alone(every, request) / 1e9,
            unit="ms a token",
            basis=gpus.basis,
        ),
    )
    events = afd_trace.of_parts(rounds[-1], "round", "draft and verify")
    report = _report(
        "draft", drafter, request, beside, gpus, program, turns, rounds[-1], figures, events=tuple(events)
    )
    return report, program


def _report(
    mode: str,
    model: OpenModel,
    request: Request,
    beside: Beside,
    gpus: GpuShare,
    program: Program,
    turns: Sequence[Turn],
    layer: Sequence[Part],
    figures: Sequence[Figure],
    *,
    events: Iterable[afd_trace.Event],
    pace: Pace | None = None,
    target: int | None = None,
    more: tuple[tuple[str, str], ...] = (),
) -> AfdReport:
    sources = [
        replace(source, field=f"{where}.{source.field}")
        for where, every in (
            (beside.rack.chip.name, beside.rack.chip.sources),
            (beside.gpu.name, beside.gpu.sources),
            (beside.bridge.name, beside.bridge.sources),
        )
        for source in every
    ]
    return AfdReport(
        mode=mode,
        machine=(
            ("model", gpus.config.name + ("" if mode != "draft" else f", drafted by {model.name}")),
            ("gpus", f"{beside.gpus} x {beside.gpu.name}: {gpus.replicas} x tp {gpus.pool.gpus}"),
            ("lpus", f"{lpus_of(program)} of {beside.rack.chips} on {beside.rack.name}"),
            (
                "bridge",
                f"{beside.bridge.name}, {beside.bridge.latency_ns / 1000:g} us one way (assumed)",
            ),
            *more,
            ("kv", model.step.kv),
            ("gemm", f"{beside.gemm} (its time; the math is the contract's)"),
            ("digest", program.manifest.digest),
        ),
        batch=request.batch,
        racks=beside.racks,
        turns=tuple(turns),
        layer=tuple(layer),
        figures=tuple(figures),
        boundary=pace.boundary if pace else None,
        warnings=tuple(_warnings(gpus, request.batch, pace, target)),
        assumptions=by_confidence(sources),
        band=gpus.pool.spec.band,
        events=tuple(events),
    )


def _warnings(gpus: GpuShare, batch: int, pace: Pace | None, target: int | None) -> list[str]:
    rows = pace.rows if pace else batch
    out = afd_hops.warnings(pace, batch, target) if pace else []
    if gpus.idle(rows):
        out.append(
            f"{gpus.idle(rows)} of {gpus.replicas} replicas of GPUs are idle: {rows} sequences at a time"
        )
    return out
