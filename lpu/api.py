"""The verbs of the command line as plain functions: open, compile, check, run, certify, compare, validate.

`compile("llama-tiny", rack="quad")` gives what `lpu compile llama-tiny --rack quad` computes. A model is a
catalog name, a model file, a Hugging Face folder, `package.module:factory`, or the factory itself.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from compiler.choose.request import require_choice
from compiler.errors import CompileError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_pair, compile_program
from compiler.program.program import Program
from fabric.rack import Rack
from lpu.afd.ask import afd as afd
from lpu.afd.ratios import ratios as ratios
from lpu.certify.options import CertifyOptions as CertifyOptions
from lpu.check.check import require
from lpu.check.memory_image import pair
from lpu.compare import compare as comparisons
from lpu.compare.compare import Comparison
from lpu.compare.point import Task
from lpu.compiled import Compiled as Compiled
from lpu.decode.choose import RunOptions as RunOptions
from lpu.decode.choose import choice_of, finish_of, until_stop
from lpu.decode.decoders import machine_of, restart, restart_pair, share_image
from lpu.decode.drafted import Drafted as Drafted
from lpu.decode.generate import check_room, generate
from lpu.decode.on_racks import speculate as speculate
from lpu.decode.ran import Run as Run
from lpu.deskew.ask import Deskewed as Deskewed
from lpu.deskew.ask import deskew as deskew
from lpu.deskew.options import DeskewOptions as DeskewOptions
from lpu.diff.sensitivity import sensitivity as sensitivity
from lpu.energy.ask import Energy as Energy
from lpu.energy.ask import energy as energy
from lpu.folder import Progress, check_program, quiet
from lpu.folder import load_prefill as load_prefill
from lpu.folder import load_program as load_program
from lpu.folder import load_step as load_step
from lpu.folder import require_legal as require_legal
from lpu.folder import save_program as save_program
from lpu.future.ask import machines as machines
from lpu.inputs.document import FileError
from lpu.inputs.files import read_rack
from lpu.inputs.model import OpenModel
from lpu.inputs.open import Model, open_model
from lpu.inputs.open import reopen as reopen
from lpu.inputs.prompts import Prompt, made_up
from lpu.inputs.prompts import default_prompts as default_prompts
from lpu.inputs.prompts import prompt_ids as prompt_ids
from lpu.keywords import Keywords as Keywords
from lpu.keywords import ModelKeywords as ModelKeywords
from lpu.keywords import chosen, model_keywords
from lpu.legal import taken_as_legal
from lpu.modules import readers_of
from lpu.nodes.ask import nodes_compare as nodes_compare
from lpu.outputs.write import atomic_folder
from lpu.outputs.write import check_writable as check_writable
from lpu.page.save import page as page
from lpu.pairs.ask import diff as diff
from lpu.plan.plan import plan as plan
from lpu.programs import Bounds as Bounds
from lpu.programs import Checked as Checked
from lpu.programs import ProgramReport as ProgramReport
from lpu.programs import bounds as bounds
from lpu.programs import check as check
from lpu.programs import prove as prove
from lpu.programs import report as report
from lpu.programs import show as show
from lpu.programs import trace as trace
from lpu.prove.programs import Proof as Proof
from lpu.prove.programs import proof_of
from lpu.remap.ask import RemapOptions as RemapOptions
from lpu.remap.ask import remap as remap
from lpu.remap.remapped import Remapped as Remapped
from lpu.report.listing import Listing as Listing
from lpu.report.overview import overview as overview
from lpu.report.show_options import ShowOptions as ShowOptions
from lpu.report.throughput import Throughput
from lpu.report.throughput import of as throughput_of
from lpu.run.machine import Machine
from lpu.run.step_inputs import bucket_of
from lpu.run.streamed.stream import StreamedMachine
from lpu.spares.ask import Spares as Spares
from lpu.spares.ask import spares as spares
from lpu.spares.availability import FailureRates as FailureRates
from lpu.study.ask import study_context as study_context
from lpu.sweep import sweep as sweeps
from lpu.sweep.front import front
from lpu.sweep.sweep import Sweep
from lpu.switch.ask import switch as switch
from lpu.switch.options import SwitchOptions as SwitchOptions
from lpu.switch.switched import Switched as Switched
from lpu.traffic.replay import replay as replay
from lpu.upsets.ask import Upsets as Upsets
from lpu.upsets.ask import upsets as upsets
from lpu.upsets.options import UpsetOptions as UpsetOptions
from lpu.validate.everything import Everything as Everything
from lpu.validate.everything import reference as reference
from lpu.validate.everything import validate as validate
from lpu.validate.everything import validate_all as validate_all
from lpu.validate.validate import Validation as Validation
from models.contract.sampling import Sampling as Sampling

if TYPE_CHECKING:
    from lpu.certify.certificate import Certificate
    from models.sources.checkpoint import OrbaxWeights


def compile(
    model: Model | OpenModel,
    *,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    check: bool = True,
    prove: bool | None = None,
    prefill: int | None = None,
    dump_dir: str | Path | None = None,
    progress: Progress = quiet,
    **keywords: Unpack[Keywords],
) -> Compiled:
    """Compile a model for a rack, check and prove the program: `compile("llama-tiny", tp=2, context=128)`.

    prefill: also compile a program that takes chunks of `prefill` tokens of one prompt. dump_dir: a folder
    for what each step of the compiler gives, as text. prove: None if checked and small.
    Raises FileError, CompileError, HazardError if the program breaks a rule, RefusedError if not proved.
    """
    if prefill is not None and prefill < 2:
        raise FileError(f"options: --prefill is {prefill}, must be at least 2: tokens of a prompt at a time.")
    options, opened = _asked("compile", model, options, keywords)
    require_choice(options, prefill)
    machine, long = rack if isinstance(rack, Rack) else read_rack(rack), None
    with nullcontext() if dump_dir is None else atomic_folder(dump_dir, "--dump-dir", CompileError) as dump:
        if prefill is None:
            program = compile_program(opened.source(), machine, options, progress, dump)
        else:
            sources = opened.source(), opened.source(prefill)
            program, long = compile_pair(*sources, machine, options, progress, dump)
    reports = check_program(program, progress) if check else {}
    long_reports = check_program(long, progress, "check prefill") if check and long else {}
    image = [pair(program, long)] if check and long else []
    for one in (*reports.values(), *long_reports.values(), *image):
        require(one)
    return Compiled(
        program=program,
        model=opened,
        rack=machine,
        reports=reports,
        prefill=long,
        prefill_reports=long_reports,
        proof=proof_of(program, long, prove=prove if check or prove else False, own=readers_of(opened)),
    )


def sweep(
    model: Model | OpenModel,
    values: Mapping[str, Sequence[Any]],
    *,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    check: bool = True,
    progress: Progress = quiet,
    **keywords: Unpack[Keywords],
) -> Sweep:
    """Compile again for values of assumed numbers (`lpu.sweep.keys`), as in `{"planes": (4, 6, 8)}`."""
    options, opened = _asked("sweep", model, options, keywords)
    machine = rack if isinstance(rack, Rack) else read_rack(rack)
    return sweeps.sweep(opened, machine, values, options, check, progress)


def pareto(
    model: Model | OpenModel,
    *,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    check: bool = True,
    progress: Progress = quiet,
    **keywords: Unpack[Keywords],
) -> list[Throughput]:
    """Programs over tp, groups and users that none beats in tokens/s and each user's (largest context)."""
    options, opened = _asked("pareto", model, options, keywords)
    machine = rack if isinstance(rack, Rack) else read_rack(rack)

    def measure(asked: CompileOptions) -> Throughput:
        made = compile(opened, rack=machine, options=asked, check=check, prove=False, progress=progress)
        return throughput_of(made.program, max(opened.contexts))

    return front(measure, options, machine.chips)


def compare(
    model: str,
    strategies: Sequence[str],
    *,
    racks: Sequence[str] = ("lpx",),
    seeds: int = 5,
    task: Task | None = None,
    folder: str | Path | None = None,
    workers: int | str = 1,
    progress: Progress = quiet,
    **keywords: Unpack[ModelKeywords],
) -> Comparison:
    """Compare placement strategies, each through the real scheduler and the checker; see docs/placement.md.

    Model and racks are names or files, as other processes open them again. task: its tp, layout, budget,
    alpha and certify are taken. folder: where points are kept. workers: processes, or the address of a
    Dask cluster. Raises FileError or OptionError.
    """
    if folder == "":
        raise FileError("output: -o names nothing. Give a path, or leave -o out.")
    base = task or Task(model=model, rack="", strategy="")
    return comparisons.compare(
        replace(base, model=model, chosen={**base.chosen, **model_keywords("compare", keywords)}),
        racks,
        strategies,
        seeds,
        folder=None if folder is None else Path(folder),
        jobs=workers if isinstance(workers, int) else 1,
        scheduler=workers if isinstance(workers, str) else None,
        progress=progress,
    )


def save_weights(model: OpenModel, folder: str | Path) -> "OrbaxWeights":
    """Save a model's converted weights with Orbax in a new folder: whole or not at all.

    Raises FileError if it cannot be written, WeightError for weights that cannot be converted.
    """
    from models.sources.checkpoint import open_orbax, save_orbax

    model.need_weights("convert")
    if os.path.lexists(folder):
        raise FileError(f"{folder}: exists already. Remove it, or choose another -o.")
    with atomic_folder(folder) as part:
        save_orbax(part, model.weights, model=model.name)
    return open_orbax(folder)


def run(
    program: Program | Compiled,
    prompts: Sequence[Prompt],
    *,
    tokens: int = 16,
    model: OpenModel | None = None,
    weights: str | None = None,
    prefill: Program | None = None,
    how: RunOptions | None = None,
    progress: Progress = quiet,
) -> Run:
    """Decode one prompt per row of the batch, each a text or token ids, at most `tokens` new ones for each.

    model: what the program was compiled from; opened again by the manifest if not given, with the checkpoint
    that `weights` names. prefill: the program that takes chunks of the prompts, if it does not come with the
    other. how: greedy until the model's end tokens if not given.
    Raises FileError (prompts, weights), LinkError, MachineError.
    """
    if isinstance(program, Compiled):
        program, model, prefill = program.program, program.model, program.prefill
    manifest, model = program.manifest, model or reopen(program.manifest, weights)
    model.need_weights("run")
    ids, batch = prompt_ids(prompts, model, model.vocab), manifest.rows
    check_room(ids, tokens, batch, max(manifest.contexts), whole=model.encodes)
    how, tokenizer, ends = how or RunOptions(), model.tokenizer(), model.ends()
    if how.stop and tokenizer is None:
        raise FileError(f"run: {model.name} has no tokenizer, so no text to stop at. Leave out --stop.")
    choice = choice_of(how, ends, tokenizer)
    progress("link", 0, 1)
    with taken_as_legal(program, prefill, counts=False):
        machine = machine_of(program, model, how.stream, progress)
        if how.estimated and isinstance(machine, StreamedMachine):
            how.estimated(machine.rate())
        chunked = prefill is not None and any(len(prompt) >= prefill.manifest.chunk for prompt in ids)
        if prefill is not None and chunked and isinstance(machine, Machine):
            decode, chunks = restart_pair(machine, share_image(prefill, model, machine))
            done = generate(decode, ids, tokens, batch, progress, prefill=chunks, how=choice)
        else:
            done = generate(restart(machine), ids, tokens, batch, progress, how=choice)
    chunked_in = prefill.manifest.contexts if prefill else ()
    return Run(
        program=program,
        generation=done,
        texts=tuple(until_stop(tokenizer.decode(one), how.stop) for one in done.tokens)
        if tokenizer and not model.encodes
        else None,
        buckets=tuple(bucket_of(manifest.contexts, position) for position in done.positions),
        prefill=prefill,
        weights=str(model.about.weights),
        tokenizer=tokenizer.name if tokenizer else None,
        finished=tuple(finish_of(how, ends, tokenizer, one) for one in done.tokens),
        sampling=how.sampling,
        prefill_buckets=tuple(bucket_of(chunked_in, position) for position in done.chunks),
        clipped=machine.clips.found(len(ids)),
        dropped=machine.overflow.found(),
    )


def certify(
    model: Model | OpenModel,
    *,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    prompts: Sequence[Prompt] | None = None,
    tokens: int = 16,
    how: CertifyOptions | None = None,
    program: Program | None = None,
    progress: Progress = quiet,
    **keywords: Unpack[Keywords],
) -> "Certificate":
    """Compile, check, prove and run a model; compare the logits' bits with every other way to get them.

    how: what else they are compared with. program: saved, of this model; only the reference is compared then.
    """
    from lpu.certify import certify as certificates

    options, opened = _asked("certify", model, options, keywords)
    opened.need_weights("certify")
    how = how or CertifyOptions()
    ids = prompt_ids(prompts, opened, opened.vocab) if prompts else made_up(opened, how.prefill or 0)
    check_room(ids, tokens, opened.step.batch, max(opened.contexts), whole=opened.encodes)
    with taken_as_legal(program, counts=False):
        return certificates.certify(
            opened,
            None if program else rack if isinstance(rack, Rack) else read_rack(rack),
            options,
            ids,
            tokens,
            rack_name=None if isinstance(rack, Rack) else str(rack),
            how=how,
            saved=program,
            progress=progress,
        )


def _asked(
    verb: str, model: Model | OpenModel, options: CompileOptions | None, keywords: Keywords
) -> tuple[CompileOptions, OpenModel]:
    """The options and the model that a verb is asked for. Raises FileError, OptionError or CompileError."""
    settled, about = chosen(verb, options, keywords)
    if not isinstance(model, OpenModel):
        return settled, open_model(model, **about)
    if about:
        subject, why = f"api.{verb}", "the model is open already"
        raise OptionError(subject, next(iter(about)), why, "Give it to open_model.")
    return settled, model
