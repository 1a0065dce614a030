"""`lpu replay`: the requests of a trace through a compiled program, with GPUs that prefill, in modelled time.

The steps of the LPUs are those of the program, cycle by cycle; prefills and hand-overs are those of
`lpu afd --mode pd` (lpu/afd/times/pd.py).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from compiler.errors import CapacityError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from fabric.rack import Rack
from lpu.afd.machines import Machines, lpus_of, machines
from lpu.compiled import Compiled, ProgramLike, programs_of
from lpu.folder import Progress, quiet, require_legal
from lpu.gpu.share import GpuShare
from lpu.inputs.document import read_document
from lpu.inputs.files import FILES, ModelFile, read_model, read_rack
from lpu.inputs.open import Model, config_in, open_model
from lpu.keywords import ModelKeywords, model_keywords
from lpu.outputs.write import atomic_folder, write_json
from lpu.report.words import EXACT, by_confidence
from lpu.traffic.asked import asked_of
from lpu.traffic.machine import dealt, prefiller, served
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

BUCKET = 1024  # contexts that are chosen for a trace are multiples of it
BLOCK_TOKENS = 512


def replay(
    source: str | Path | Trace | DrawnTraffic,
    model: Model | ProgramLike,
    *,
    gpus: TrafficGpus | None = None,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    asked: ReplayOptions | None = None,
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
    program, note = compiled_for(first, model, rack, options or CompileOptions(), check, progress, keywords)
    there = machines(rack, gpus, gpus.gpus, gpus.gpu_tp) if gpus.gpus else None
    machine, share = machine_for(first, program, there, asked)
    seeds = seeds_of(traces, asked.seeds)
    tasks = [(traces, seed, machine) for seed in seeds]
    outcomes = replay_seeds(tasks, asked.jobs, asked.scheduler, progress)
    report = report_of(first, program, machine, share, outcomes, tuple(seed or 0 for seed in seeds), asked)
    names = None if isinstance(source, Trace | DrawnTraffic) else str(source), model, rack
    report = replace(
        report,
        asked=asked_of(traces, program, names, options or CompileOptions(), keywords, asked, (gpus, there)),
    )
    if note:
        report = replace(report, warnings=(note, *report.warnings))
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


def compiled_for(
    trace: Trace,
    model: Model | ProgramLike,
    rack: str | Path | Rack,
    options: CompileOptions,
    check: bool,
    progress: Progress,
    keywords: ModelKeywords,
) -> tuple[Program, str]:
    """The program that serves a trace, checked: one that is given, or the model's for the longest request.

    And a note, if something was chosen for it to fit.
    """
    note = ""
    if isinstance(model, Program | Compiled) or (
        isinstance(model, str | Path) and (Path(model) / "manifest.json").is_file()
    ):
        program, _ = programs_of(model)
    else:
        about = dict(model_keywords("replay", keywords))
        if not about.get("context"):
            about["context"] = context_for(trace.longest, model, bool(about.get("trust")))
        machine = rack if isinstance(rack, Rack) else read_rack(rack)
        program, note = _compiled(model, about, not keywords.get("context"), machine, options, progress)
    if check:
        require_legal(program, None, progress)
    return program, note


def _compiled(
    model: Any,
    about: dict[str, Any],
    chosen: bool,
    machine: Rack,
    options: CompileOptions,
    progress: Progress,
) -> tuple[Program, str]:
    """The program, and what was changed for it to fit: the format of the KV, if nobody chose one."""
    try:
        return compile_program(open_model(model, **about).source(), machine, options, progress), ""
    except CapacityError:
        if not chosen or about.get("kv"):
            raise
        about = {**about, "kv": "fp8"}
        program = compile_program(open_model(model, **about).source(), machine, options, progress)
        return program, f"the KV of {program.manifest.longest} tokens fits only as fp8: that was taken (--kv)"


def context_for(longest: int, model: Model, trust: bool) -> tuple[int, ...] | None:
    """A bucket for the longest request, a multiple of 1,024 tokens; at most the model's longest.

    None if the model's file states its own.
    """
    if isinstance(model, str | Path):
        if Path(model).suffix in FILES and "context" in read_document(Path(model)).data:
            return None
        config = config_in(read_model(model, trust))
    else:
        config = config_in(model) if isinstance(model, ModelFile) else None
    wanted = -(-longest // BUCKET) * BUCKET
    return (wanted if config is None else min(wanted, config.longest),)


def machine_for(
    trace: Trace, program: Program, there: Machines | None, asked: ReplayOptions
) -> tuple[Served, GpuShare | None]:
    """The machine of a simulation, and the GPUs as they are dealt."""
    if there is None:
        return served(program, None, asked.queue), None
    longest = program.manifest.longest
    share = dealt(program, there, min(int(trace.inputs.mean()), longest - 1))
    tokens = trace.blocks.tokens if trace.blocks else BLOCK_TOKENS
    return served(
        program,
        prefiller(share, program, asked.cache, tokens, asked.host_blocks, asked.disk_blocks),
        asked.queue,
    ), share


def report_of(
    trace: Trace,
    program: Program,
    machine: Served,
    share: GpuShare | None,
    outcomes: Sequence[Outcome],
    seeds: tuple[int, ...],
    asked: ReplayOptions,
) -> ReplayReport:
    """What came of a replay; sums over seeds, and means over them of what is not one."""
    manifest, hz = program.manifest, machine.clock_hz
    targets = asked.seconds
    too_long, refused = refused_of(outcomes)
    requests = sum(len(one.status) for one in outcomes)
    occupied = [one.occupancy() for one in outcomes]
    return ReplayReport(
        machine=about(trace, program, machine, share),
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
        blocks=_blocks(trace, outcomes),
        users=mean([users for users, _ in occupied]),
        most_users=max(most for _, most in occupied),
        kv_share=mean([one.kv_tokens() for one in outcomes]) / (machine.slots * machine.longest),
        waited=max(one.peak_waiting for one in outcomes),
        drains=sum(one.drains for one in outcomes),
        resources=_resources(machine, share, outcomes, mean([users for users, _ in occupied])),
        basis=share.basis if share else EXACT,
        gpus=share is not None,
        assumptions=by_confidence(manifest.sources),
        warnings=_warnings(machine, outcomes),
        curves=curves_of(outcomes, targets),
        arrivals=arrivals_of(outcomes[0], ReplayReport.MOST_POINTS),
    )


def _blocks(trace: Trace, outcomes: Sequence[Outcome]) -> int:
    """Blocks of the prompts that were looked up."""
    if trace.blocks is None or not outcomes[0].busy:
        return 0
    counts = trace.blocks.starts[1:] - trace.blocks.starts[:-1]
    return sum(int(counts[one.served].sum()) for one in outcomes)


def about(
    trace: Trace, program: Program, machine: Served, share: GpuShare | None
) -> tuple[tuple[str, str], ...]:
    """Trace and machine, in names and values."""
    manifest = program.manifest
    waves = f"{machine.groups} groups of {machine.rows}"
    steps = ", ".join(f"{pace.turn:,} to {pace.context}" for pace in machine.paces)
    rows = [
        ("trace", trace.name),
        ("model", f"{manifest.model.name}, kv {manifest.model.kv}"),
        ("lpus", f"{lpus_of(program)} of {manifest.chips} on {manifest.rack}"),
        ("slots", f"{machine.slots} users ({waves}), contexts to {machine.longest}"),
        ("step", f"cycles from token to token, by context: {steps}"),
    ]
    if share is None:
        return (*rows, ("prefill", "none: prompts are taken token by token in their slots"))
    prefill = machine.prefill
    assert prefill is not None
    blocks = "no limit of" if prefill.cache_blocks is None else f"{prefill.cache_blocks:,}"
    return (
        *rows,
        (
            "gpus",
            f"{share.gpus} x {share.pool.spec.name}: {share.replicas} x tp {share.pool.gpus}, a prompt each",
        ),
        ("prefixes", f"{blocks} blocks of {trace.blocks.tokens if trace.blocks else BLOCK_TOKENS} tokens"),
    )


def _resources(
    machine: Served, share: GpuShare | None, outcomes: Sequence[Outcome], users: float
) -> tuple[BusyPart, ...]:
    found = [
        BusyPart(name="slots", share=users / machine.slots, remark="of the LPUs, a user decodes in them")
    ]
    if share is not None:
        spans = sum(one.span_cycles for one in outcomes) * share.replicas or 1
        busy, wired = sum(one.busy for one in outcomes), sum(one.wired for one in outcomes)
        found.append(BusyPart(name="gpus", share=busy / spans, remark="replicas that prefill"))
        for i, tier in enumerate(machine.prefill.tiers if machine.prefill else ()):
            count = sum(one.fetched[i] for one in outcomes)
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
    if prefill and spans and sum(one.busy for one in outcomes) / spans / prefill.replicas > 0.95:
        out.append("the GPUs are busy nearly all the time: the queue grew with the trace, and so did TTFT")
    if len(outcomes) == 1:
        out.append("intervals of one run take requests as independent; --seeds N of drawn requests does not")
    return tuple(out)
