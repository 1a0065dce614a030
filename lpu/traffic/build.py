"""The machine of a replay: its programs compiled and checked, its GPUs dealt, in one of the modes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler.errors import CapacityError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program, may_fit
from compiler.program.program import Program
from compiler.source import traced
from fabric.rack import Rack
from lpu.afd.ask import others_of
from lpu.afd.machines import Machines
from lpu.afd.mode import Mode
from lpu.afd.modes.pd import Pd
from lpu.afd.question import Question
from lpu.compiled import Compiled, ProgramLike, programs_of
from lpu.folder import Progress, quiet, require_legal
from lpu.gpu.request import Request
from lpu.gpu.share import GpuShare
from lpu.inputs.document import read_document
from lpu.inputs.files import FILES, ModelFile, read_model, read_rack
from lpu.inputs.model import OpenModel, numbers_of
from lpu.inputs.open import Model, config_in, open_model
from lpu.keywords import ModelKeywords, model_keywords
from lpu.traffic.beside import lengths_of, served_beside
from lpu.traffic.machine import ddr5_of, dealt, prefiller, served
from lpu.traffic.options import ReplayOptions
from lpu.traffic.served import Served
from lpu.traffic.trace import Trace

BUCKET = 1024  # contexts that are chosen for a trace are multiples of it
BLOCK_TOKENS = 512
SEQUENCES = 8  # users of a mode whose steps GPUs have a part in, where nothing else is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The LPUs' program, what requests see of it, the GPUs beside it, and what was chosen for it to fit."""

    program: Program
    machine: Served
    share: GpuShare | None
    note: str = ""


def built(
    trace: Trace,
    model: Model | ProgramLike,
    mode: Mode,
    rack: str | Path | Rack,
    there: Machines | None,
    asked: ReplayOptions,
    options: CompileOptions,
    check: bool,
    progress: Progress,
    keywords: ModelKeywords,
) -> Built:
    """The machine of a replay. Raises FileError, CompileError or HazardError."""
    if mode.name != "pd":
        about = dict(model_keywords("replay", keywords))
        return _beside(trace, model, mode, there, asked, options, check, progress, about)
    if mode != Pd():
        reason = "has options of turns, a replay has none"
        raise OptionError(
            "replay", "--mode pd", reason, "Leave out --kv-policy, --cached-tokens, --kv-cache."
        )
    program, note = compiled_for(trace, model, rack, options, check, progress, keywords)
    machine, share = machine_for(trace, program, there, asked)
    return Built(program=program, machine=machine, share=share, note=note)


def _beside(
    trace: Trace,
    model: Any,
    mode: Mode,
    there: Machines | None,
    asked: ReplayOptions,
    options: CompileOptions,
    check: bool,
    progress: Progress,
    about: dict[str, Any],
) -> Built:
    """A mode whose steps the GPUs have a part in."""
    _need_nothing_else(model, mode, there, asked, options)
    assert there is not None
    if not about.get("context"):
        about["context"] = context_for(trace.longest, model, bool(about.get("trust")))
    given: dict[str, Any] = {"batch": SEQUENCES} | about | mode.changes()
    opened = open_model(model, **given)
    lengths = int(trace.inputs.mean()), int(trace.outputs.mean())
    trust = bool(about.get("trust"))
    question = question_of("replay", mode, opened, there, lengths, options, check, progress, trust=trust)
    found = mode.beside(question)
    assert found is not None
    kv = lengths_of(max(opened.contexts))
    machine = served_beside(found, opened.step.batch, kv, queue=asked.queue)
    return Built(program=found.program, machine=machine, share=found.gpus)


def question_of(
    verb: str,
    mode: Mode,
    opened: OpenModel,
    there: Machines,
    lengths: tuple[int, int],
    options: CompileOptions,
    check: bool = True,
    progress: Progress = quiet,
    *,
    run: bool = False,
    trust: bool = False,
) -> Question:
    """What a mode is asked for traffic: requests of this many tokens in and out in every slot.

    run: tokens are real. Raises FileError or OptionError.
    """
    opened.need_decoder(verb)
    longest = max(opened.contexts)
    prompt = max(min(lengths[0], longest - 1), 2)
    new = max(min(lengths[1], longest - prompt), 1)
    request = Request(prompt_tokens=prompt, new_tokens=new, batch=opened.step.batch)
    mode.check(request, run=run)
    others = others_of(mode, opened, opened.contexts, trust)
    return Question(
        model=opened,
        request=request,
        machines=there,
        options=options,
        check=check,
        others=others,
        progress=progress,
    )


def _need_nothing_else(
    model: Any, mode: Mode, there: Machines | None, asked: ReplayOptions, options: CompileOptions
) -> None:
    """Raise OptionError for what does not go with a mode whose steps the GPUs have a part in."""
    name = f"--mode {mode.name}"
    if there is None:
        raise OptionError("replay", name, "needs GPUs, --gpus is 0", "Give --gpus, at least 1.")
    if isinstance(model, Program | Compiled) or (
        isinstance(model, str | Path) and (Path(model) / "manifest.json").is_file()
    ):
        raise OptionError("replay", name, "compiles its own program", "Give the name of a model.")
    if options.objective != "latency":
        raise OptionError("replay", name, "has steps of its own", "Leave out --objective.")
    usual = ReplayOptions()
    for field in ("cache", "host_blocks", "disk_blocks", "slot_cache", "ddr5_blocks", "share"):
        if (given := getattr(asked, field)) not in (getattr(usual, field), "none"):
            flag = f"--{field.replace('_', '-')}"
            raise OptionError("replay", name, f"has no prefix cache: {flag} is {given}", f"Leave out {flag}.")


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
    opened = open_model(model, **about)
    opened.need_decoder("replay")
    fixed, source = not chosen or bool(about.get("kv")), traced(opened.source())
    try:
        if fixed or may_fit(source, machine, options):
            return compile_program(source, machine, options, progress), ""
    except CapacityError:
        if fixed:
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
    keeps = asked.slot_cache or asked.ddr5_blocks > 0
    if keeps and trace.blocks is None:
        flag = "--slot-cache" if asked.slot_cache else "--ddr5-blocks"
        reason = "needs the blocks of prompts, and the trace has 0 hash ids"
        raise OptionError("replay", flag, reason, "Leave it out, or give a trace with hash_ids.")
    config = numbers_of(program.manifest)
    if keeps and config is not None and any(state for _, _, state in config.kept_bytes(1)):
        flag = "--slot-cache" if asked.slot_cache else "--ddr5-blocks"
        reason = (
            f"keeps states, of which a slot has those behind its last token only: {flag} is of whole blocks"
        )
        raise OptionError("replay", config.name, reason, f"Leave out {flag}.")
    tokens = trace.blocks.tokens if trace.blocks else BLOCK_TOKENS
    below = ddr5_of(program, asked.ddr5_blocks, tokens)
    if there is None:
        if asked.share == "load":
            raise OptionError(
                "replay", "--share", "is load, there are 0 GPUs", "Give --gpus, or leave it out."
            )
        return served(program, None, asked.queue, keeps=keeps, ddr5=below), None
    longest = program.manifest.longest
    share = dealt(program, there, min(int(trace.inputs.mean()), longest - 1))
    tiers = {"host": asked.host_blocks, "disk": asked.disk_blocks}
    prefill = prefiller(share, program, asked.cache, tokens, **tiers, keeps=keeps)
    by_load = asked.share == "load"
    return served(program, prefill, asked.queue, by_load=by_load, keeps=keeps, ddr5=below), share
