"""`lpu replay`: the requests of a trace through a compiled program, with GPUs beside it, in modelled time.

The steps of the LPUs are those of the program, cycle by cycle; prefills, hand-overs and steps that GPUs have
a part in are those of `lpu afd` (lpu/afd/times).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from compiler.options import CompileOptions
from fabric.rack import Rack
from lpu.afd.machines import lpus_of, machines
from lpu.afd.mode import Mode
from lpu.afd.modes.pd import Pd
from lpu.compiled import ProgramLike
from lpu.folder import Progress, quiet
from lpu.gpu.share import GpuShare
from lpu.inputs.open import Model
from lpu.keywords import ModelKeywords
from lpu.outputs.write import atomic_folder, write_json
from lpu.report.words import EXACT, by_confidence
from lpu.traffic.asked import asked_of
from lpu.traffic.build import BLOCK_TOKENS, Built, built
from lpu.traffic.options import ReplayOptions, TrafficGpus
from lpu.traffic.outcome import Outcome
from lpu.traffic.readers.drawn import DrawnTraffic
from lpu.traffic.readers.read import read_trace
from lpu.traffic.reports.pictures import draw, need_matplotlib
from lpu.traffic.reports.report import (
    BusyPart,
    ReplayReport,
    arrivals_of,
    curves_of,
    mean,
    refused_of,
    spans_by_class,
    spans_of,
)
from lpu.traffic.reports.request_log import need_pyarrow, write_log
from lpu.traffic.served import Served
from lpu.traffic.simulation.seeds import replay_seeds
from lpu.traffic.trace import Trace


def replay(
    source: str | Path | Trace | DrawnTraffic,
    model: Model | ProgramLike,
    *,
    gpus: TrafficGpus | None = None,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    asked: ReplayOptions | None = None,
    mode: Mode | None = None,
    check: bool = True,
    progress: Progress = quiet,
    **keywords: Unpack[ModelKeywords],
) -> ReplayReport:
    """What `lpu replay` reports. source: a trace, a file of one, or distributions to draw from.

    model: compiled for the trace's longest request unless `context` says otherwise; or a program.
    Raises FileError (file:line of a trace), CompileError, HazardError.
    """
    asked, gpus = asked or ReplayOptions(), gpus or TrafficGpus()
    need_output(asked)
    traces = source if isinstance(source, Trace | DrawnTraffic) else read_trace(source)
    first = traces.trace() if isinstance(traces, DrawnTraffic) else traces
    there = machines(rack, gpus, gpus.gpus, gpus.gpu_tp) if gpus.gpus else None
    made = built(
        first, model, mode or Pd(), rack, there, asked, options or CompileOptions(), check, progress, keywords
    )
    seeds = seeds_of(traces, asked.seeds)
    tasks = [(traces, seed, made.machine) for seed in seeds]
    outcomes = replay_seeds(tasks, asked.jobs, asked.scheduler, progress)
    report = report_of(first, made, outcomes, tuple(seed or 0 for seed in seeds), asked, mode or Pd())
    names = None if isinstance(source, Trace | DrawnTraffic) else str(source), model, rack
    chosen = (options or CompileOptions(), mode or Pd(), keywords)
    report = replace(report, asked=asked_of(traces, made.program, names, chosen, asked, (gpus, there)))
    if made.note:
        report = replace(report, warnings=(made.note, *report.warnings))
    with nullcontext() if asked.output is None else atomic_folder(asked.output) as folder:
        if folder is not None:
            write_log(folder, outcomes, report.seeds, asked.log)
            write_json(folder / "replay.json", report.to_json())
            if asked.pictures:
                draw(folder, outcomes, first.name)
    return report


def need_output(asked: ReplayOptions) -> None:
    """Raise FileError for what could not be written in the end."""
    if asked.output is not None and asked.log == "parquet":
        need_pyarrow()
    if asked.pictures:
        need_matplotlib()


def seeds_of(source: Trace | DrawnTraffic, count: int) -> list[int | None]:
    """The seeds of a replay; a trace that was recorded has none."""
    if isinstance(source, Trace):
        return [None]
    return [source.seed + i for i in range(count)]


def report_of(
    trace: Trace,
    made: Built,
    outcomes: Sequence[Outcome],
    seeds: tuple[int, ...],
    asked: ReplayOptions,
    mode: Mode,
) -> ReplayReport:
    """What came of a replay; sums over seeds, and means over them of what is not one."""
    program, machine, share = made.program, made.machine, made.share
    manifest, hz = program.manifest, machine.clock_hz
    targets = asked.seconds
    too_long, refused = refused_of(outcomes)
    requests = sum(len(one.status) for one in outcomes)
    occupied = [one.occupancy() for one in outcomes]
    return ReplayReport(
        machine=about(trace, made, mode),
        chip=manifest.chip.name,
        digest=manifest.digest,
        seeds=seeds,
        requests=requests,
        left_out=trace.left_out,
        too_long=too_long,
        refused=refused,
        span_seconds=sum(one.span_cycles for one in outcomes) / hz,
        tokens=sum(int(one.outputs[one.served].sum()) for one in outcomes),
        spans=spans_of(outcomes) | spans_by_class(outcomes),
        targets=targets,
        good=sum(int(one.meets(*targets).sum()) for one in outcomes) / requests,
        hits=sum(int(one.block_hits.sum()) for one in outcomes),
        blocks=_blocks(trace, made, outcomes),
        kept=sum(one.kept_blocks for one in outcomes),
        by_lpus=sum(one.by_lpus for one in outcomes) if machine.by_load else None,
        users=mean([users for users, _ in occupied]),
        most_users=max(most for _, most in occupied),
        kv_share=mean([one.kv_tokens() for one in outcomes]) / (machine.slots * machine.longest),
        waited=max(one.peak_waiting for one in outcomes),
        drains=0 if machine.gpus_step else sum(one.drains for one in outcomes),
        resources=_resources(machine, share, outcomes, mean([users for users, _ in occupied])),
        basis=share.basis if share else EXACT,
        steps_basis=share.basis if share and machine.gpus_step else EXACT,
        gpus=share is not None,
        assumptions=by_confidence(manifest.sources),
        warnings=_warnings(machine, outcomes),
        curves=curves_of(outcomes, targets),
        arrivals=arrivals_of(outcomes[0], ReplayReport.MOST_POINTS),
    )


def _blocks(trace: Trace, made: Built, outcomes: Sequence[Outcome]) -> int:
    """Blocks of the prompts that were looked up."""
    if trace.blocks is None or not (outcomes[0].busy or made.machine.keeps):
        return 0
    counts = trace.blocks.starts[1:] - trace.blocks.starts[:-1]
    return sum(int(counts[one.served].sum()) for one in outcomes)


def about(trace: Trace, made: Built, mode: Mode) -> tuple[tuple[str, str], ...]:
    """Trace and machine, in names and values."""
    program, machine, share = made.program, made.machine, made.share
    manifest = program.manifest
    waves = f"{machine.groups} group{'s' * (machine.groups > 1)} of {machine.rows}"
    paces = (machine.paces[0], machine.paces[-1]) if machine.gpus_step else machine.paces
    steps = ", ".join(f"{pace.turn:,} to {pace.context}" for pace in paces)
    rows = [
        ("trace", trace.name),
        ("model", f"{manifest.model.name}, kv {manifest.model.kv}"),
        ("lpus", f"{lpus_of(program)} of {manifest.chips} on {manifest.rack}"),
        (
            "slots",
            f"{machine.slots} user{'s' * (machine.slots > 1)} ({waves}), contexts to {machine.longest}",
        ),
        ("step", f"cycles from token to token, by context: {steps}"),
    ]
    if share is None:
        return (*rows, ("prefill", "none: prompts are taken token by token in their slots"))
    prefill = machine.prefill
    assert prefill is not None
    blocks = "no limit of" if prefill.cache_blocks is None else f"{prefill.cache_blocks:,}"
    gpus = f"{share.gpus} x {share.pool.spec.name}: {share.replicas} x tp {share.pool.gpus}, a prompt each"
    rows += [("mode", mode.words()), ("gpus", gpus)]
    if machine.gpus_step:
        return (*rows, ("prefixes", "none are kept"))
    return (
        *rows,
        ("prefixes", f"{blocks} blocks of {trace.blocks.tokens if trace.blocks else BLOCK_TOKENS} tokens"),
    )


def _resources(
    machine: Served, share: GpuShare | None, outcomes: Sequence[Outcome], users: float
) -> tuple[BusyPart, ...]:
    found = [
        BusyPart(name="slots", share=users / machine.slots, remark="of the LPUs, a user decodes in them")
    ]
    if machine.ddr5 is not None:
        count, spans = sum(one.from_ddr5 for one in outcomes), sum(one.span_cycles for one in outcomes) or 1
        busy_share = count * machine.ddr5.block_cycles / spans
        found.append(
            BusyPart(
                name="ddr5", share=busy_share, remark=f"{count:,} prefix blocks into slots, {machine.ddr5}"
            )
        )
    if share is not None and machine.prefill is not None:
        spans = sum(one.span_cycles for one in outcomes) * share.replicas or 1
        busy, wired = sum(one.busy for one in outcomes), sum(one.wired for one in outcomes)
        remark = "replicas that prefill, steps not counted" if machine.gpus_step else "replicas that prefill"
        found.append(BusyPart(name="gpus", share=busy / spans, remark=remark))
        prefill = machine.prefill
        tiers = [(tier, sum(one.fetched[i] for one in outcomes)) for i, tier in enumerate(prefill.tiers)]
        if prefill.slots:
            tiers.insert(0, (prefill.slots.fetch, sum(one.from_slots for one in outcomes)))
        for tier, count in tiers:
            busy_share = count * tier.block_cycles * share.replicas / spans
            found.append(
                BusyPart(name=tier.name, share=busy_share, remark=f"{count:,} prefix blocks fetched")
            )
        found.append(BusyPart(name="nics", share=wired / spans, remark="of those, KV on its way to the LPUs"))
    return tuple(found)


def _warnings(machine: Served, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What a reader of the percentiles should know."""
    out: list[str] = []
    prefill = machine.prefill
    spans = sum(one.span_cycles for one in outcomes)
    if (
        prefill
        and not machine.gpus_step
        and spans
        and sum(one.busy for one in outcomes) / spans / prefill.replicas > 0.95
    ):
        out.append("the GPUs are busy nearly all the time: the queue grew with the trace, and so did TTFT")
    if len(outcomes) == 1:
        out.append("intervals of one run take requests as independent; --seeds N of drawn requests does not")
    return tuple(out)
