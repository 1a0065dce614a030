"""GPUs and LPUs together: a request in one of the modes, compiled, timed, and run if asked.

The LPU side is a scheduled program in every mode, so its part of a time is exact; the GPUs' part is modelled.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from compiler.options import CompileOptions
from fabric.rack import Rack
from lpu.afd.asked import asked_of, model_asked
from lpu.afd.bits import verdict
from lpu.afd.machines import Machines, lpus_of, machines, of_pod
from lpu.afd.mode import Mode
from lpu.afd.modes.pd import Pd
from lpu.afd.options import Gpus, Wanted
from lpu.afd.question import Question, Timed
from lpu.afd.report import AfdReport
from lpu.afd.trace import write_trace
from lpu.folder import Progress, quiet, save_into
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel
from lpu.inputs.open import Model, open_model
from lpu.keywords import ModelKeywords, model_keywords
from lpu.outputs.write import atomic_folder, check_writable
from lpu.report.words import by_confidence


def afd(
    model: Model,
    request: Request,
    *,
    mode: Mode | None = None,
    gpus: Gpus | None = None,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    wanted: Wanted | None = None,
    progress: Progress = quiet,
    **keywords: Unpack[ModelKeywords],
) -> AfdReport:
    """What `lpu afd` reports of a request. mode: `Pd()` if not given.

    wanted: to run the math and compare its bits with the model's, a folder for the LPUs' program and those
    that move its data beside it, a trace. Contexts are the ends of the turns if not given.
    Raises FileError, CompileError, HazardError, LinkError or MachineError.
    """
    mode, gpus, wanted = mode or Pd(), gpus or Gpus(), wanted or Wanted()
    mode.check(request, run=wanted.run)
    if wanted.trace is not None:
        check_writable(wanted.trace, "--trace")
    if wanted.html is not None:
        check_writable(wanted.html, "--html")
    gpus, rack = of_pod(gpus, rack)
    there = machines(rack, gpus, gpus.gpus, gpus.gpu_tp, gpus.gpu_table, gpus.engine)
    chosen = dict(model_keywords("afd", keywords))
    opened, others = _opened(model, request, mode, chosen)
    for one in (opened, *others.values()) if wanted.run else ():
        one.need_weights("afd --run")
    asked = Question(
        model=opened,
        request=request,
        machines=there,
        options=options or CompileOptions(),
        check=wanted.check,
        others=others,
        progress=progress,
    )
    with nullcontext() if wanted.output is None else atomic_folder(wanted.output) as folder:
        timed = mode.time(asked)
        names = model, rack
        report = replace(
            _report(mode, asked, timed),
            asked=asked_of(mode, request, gpus, there, asked.options, names, chosen) | model_asked(opened),
        )
        moves = mode.moves(asked, timed.program) if wanted.run or folder is not None else {}
        if folder is not None:
            save_into(folder, timed.program, **moves)
        if wanted.run:
            found = mode.converse(asked, timed.program, moves)
            report = replace(report, bits=verdict(found, opened, request, progress), counts=found.counts)
    if wanted.trace is not None:
        write_trace(wanted.trace, report.events, {"mode": mode.name, "machine": dict(report.machine)})
    return report


def _opened(
    model: Model, request: Request, mode: Mode, chosen: dict[str, Any]
) -> tuple[OpenModel, dict[str, OpenModel]]:
    """The model for the batch and contexts of the request, and the others that the mode names."""
    if not chosen.get("context"):
        ends = (request.before(turn + 1) for turn in range(request.turns))
        chosen = chosen | {"context": tuple(dict.fromkeys(ends))}
    given: dict[str, Any] = chosen | mode.changes() | {"batch": request.batch}
    opened = open_model(model, **given)
    if max(opened.contexts) < request.context:
        raise FileError(
            f"request: its turns come to {request.context} tokens, --context ends at {max(opened.contexts)}."
        )
    return opened, others_of(mode, opened, chosen["context"], chosen.get("trust", False))


def others_of(
    mode: Mode, opened: OpenModel, context: int | Sequence[int], trust: bool
) -> dict[str, OpenModel]:
    """The other models that a mode names, as the model is opened."""
    about: dict[str, Any] = {"batch": opened.step.batch, "context": context, "kv": opened.step.kv}
    about |= {"trust": trust}
    return {name: open_model(other, **about) for name, other in mode.others().items()}


def _report(mode: Mode, asked: Question, timed: Timed) -> AfdReport:
    there, gpus = asked.machines, timed.gpus
    sources = [
        replace(source, field=f"{spec.name}.{source.field}")
        for spec in (there.rack.chip, there.gpu, there.bridge)
        for source in spec.sources
    ]
    return AfdReport(
        mode=mode.name,
        machine=(
            ("model", gpus.config.name + timed.aside),
            ("weights", str(asked.model.about.weights)),
            (
                "gpus",
                f"{there.gpus} x {there.gpu.name}: {gpus.replicas} x tp {gpus.pool.gpus}"
                f"{_served(there, gpus.config.name)}",
            ),
            ("lpus", f"{lpus_of(timed.program)} of {there.rack.chips} on {there.rack.name}"),
            ("bridge", f"{there.bridge.name}, {there.bridge.latency_ns / 1000:g} us one way (assumed)"),
            *timed.machine,
            ("kv", asked.model.step.kv),
            ("gemm", f"{there.gemm} (its time; the math is the contract's)"),
            ("digest", timed.program.manifest.digest),
        ),
        batch=asked.request.batch,
        racks=there.racks,
        turns=timed.turns,
        layer=timed.layer,
        layer_name=mode.layer,
        figures=timed.figures,
        boundary=timed.boundary,
        warnings=(*asked.model.notes, *timed.warnings, *_idle(gpus, timed.rows)),
        assumptions=by_confidence(sources),
        band=max(gpus.pool.band, there.engine.band_of(gpus.config.name) if there.engine else 0.0),
        events=timed.events,
    )


def _served(there: Machines, model: str) -> str:
    """Which engine serves, with its band."""
    one = there.engine
    return f", decode steps by {one.name} (band +-{100 * one.band_of(model):g} %)" if one else ""


def _idle(gpus: GpuShare, rows: int) -> tuple[str, ...]:
    """A warning if there are more replicas than sequences at a time."""
    if not gpus.idle(rows):
        return ()
    return (f"{gpus.idle(rows)} of {gpus.replicas} replicas of GPUs are idle: {rows} sequences at a time",)
