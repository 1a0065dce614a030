"""Verbs that execute: run, certify."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from compiler.options import Check, CompileOptions, Option
from lpu.cli.options import (
    Choices,
    ModelOptions,
    OneStep,
    Prefill,
    Prompts,
    RackOptions,
    Stream,
    model_names,
)
from lpu.cli.terminal import TERMINAL, Bar, progress
from lpu.cli.verb import Given, options_of

DIFFERENT = 1
COMPILED = "has no meaning for a program that is compiled already"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How a program is run; corrupt flips one bit of a weight, for tests."""

    model: Annotated[
        str | None,
        Option("--model", "The module:factory that the program was compiled from.", metavar="NAME"),
    ] = None
    prefill: Prefill = None
    drafter: Annotated[
        str | None,
        Option("--drafter", "A small MODEL that proposes tokens; the program judges them.", metavar="MODEL"),
    ] = None
    drafts: Annotated[int, Option("--drafts", "Tokens that the drafter proposes a round.", least=1)] = 4
    drafter_rack: Annotated[
        str | None,
        Option("--drafter-rack", "Where the drafter runs.", metavar="RACK", shown="a rack like --rack"),
    ] = None
    stream: Stream = None
    check: Check = True
    corrupt: Annotated[bool, Option("--corrupt", hidden=True)] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Certifying:
    """What is compared with what, and where the certificate goes; corrupt, for tests: what is to be wrong."""

    output: Annotated[str | None, Option("-o --output", "Certificate file to write.", metavar="FILE")] = None
    prefill: Prefill = None
    plain: Annotated[
        bool, Option("--plain/--no-plain", "The numerical-equivalence report against plain f32.")
    ] = True
    python: Annotated[
        tuple[str, ...],
        Option(
            "--python",
            "Another Python with lpu-emulator (and its JAX) to compare with; repeatable.",
            metavar="FILE",
        ),
    ] = ()
    stream: Stream = None
    corrupt: Annotated[str, Option("--corrupt", hidden=True)] = ""


def run(
    program: Annotated[
        str, Option("PROGRAM|MODEL", "A program folder, or a MODEL to compile.", names=model_names)
    ],
    prompts: Prompts,
    options: OneStep,
    changes: ModelOptions,
    running: Running,
    choosing: Choices,
    given: Given,
    on: RackOptions,
) -> None:
    """Decode token by token: link the program and run it, with its cycles beside the text.

    Examples:
      lpu run llama-tiny --prompt Hello --tokens 8
      lpu run program --prompt-ids 1,2,3
      lpu run ./my-hf-folder --prompt Hello --temperature 0.7 --sample-seed 1
      lpu run llama-tiny --drafter llama-tiny --drafts 3
    """
    rack = on.named()
    if running.drafter is not None:
        from lpu.cli.draft import draft

        if is_program(program):  # its drafter may have a rack of its own kind
            given.refuse(sorted((OF_A_MODEL - {"rack", "fault"}) & given), COMPILED)
        draft(program, prompts, options, changes, running, choosing, given, rack)
        return
    given.refuse(["drafts", "drafter_rack"], "says how a drafter proposes, and there is none")
    from lpu import api
    from lpu.cli.show_run import estimated
    from lpu.cli.stream import TextStream
    from lpu.decode.generate import steps_needed
    from lpu.inputs.prompts import made_up

    terminal, tokens = TERMINAL.get(), prompts.tokens
    wanted, how = prompts.chosen(), replace(choosing.given(), stream=running.stream)
    with progress() as bar:
        made, long, model = _opened(program, running, changes, given, len(wanted) if wanted else None, bar)
        terminal.notes(model.notes)
        model.need_weights("run")
        ids = api.prompt_ids(wanted or made_up(model), model, model.vocab, chat=prompts.chat)
        api.check_room(ids, tokens, model.step.batch, max(model.contexts), whole=model.encodes)
        how = replace(how, estimated=estimated(terminal, steps_needed(ids, tokens)))
        if made is None:
            compiled = api.compile(
                model, rack=rack, options=options, check=running.check, prefill=running.prefill, progress=bar
            )
            made, long = compiled.program, compiled.prefill
        if running.corrupt:
            from lpu.decode.decoders import flipped

            model = replace(model, weights=flipped(model.weights))
        tokenizer, text = model.tokenizer(), None
        if tokenizer is not None and len(ids) == 1 and not terminal.json and not model.encodes:
            text = TextStream(tokenizer.decode, choosing.stop, bar.stop)
        done = api.run(
            made,
            ids,
            tokens=tokens,
            model=model,
            prefill=long,
            how=how if text is None else replace(how, told=text),
            progress=bar,
        )
    if text is not None and done.texts is not None:
        text.finish(done.texts[0])
    _show(done, made, streamed=text is not None, asked=wanted is not None)


def _opened(
    program: str, running: Running, changes: ModelOptions, given: Given, prompts: int | None, bar: Bar
) -> tuple[Any, Any, Any]:
    """A program folder's step and prefill program (None: a model that is to be compiled), and the model."""
    from lpu import api

    if not is_program(program):
        given.refuse(["model"], "says what a program was compiled from, and this is none")
        return None, None, api.open_model(program, **changes.given(prompts))
    given.refuse(sorted(OF_A_MODEL & given), COMPILED)
    made = api.load_step(program)
    long = api.load_prefill(program, made)
    if running.check:
        api.require_legal(made, long, bar)
    return made, long, api.reopen(made.manifest, changes.weights, running.model, changes.trust)


def _show(done: Any, made: Any, *, streamed: bool, asked: bool) -> None:
    """Prints a run, and what each bucket that it used keeps busy. asked: whether the user gave prompts."""
    from lpu.cli.show_run import prompts_from, run_body, show_run
    from lpu.report.occupancy import occupancy

    terminal = TERMINAL.get()
    show_run(terminal, done, streamed=streamed, given=asked)
    used = [occupancy(made, bucket) for bucket in sorted(set(done.buckets))]
    for one in used:
        terminal.say(str(one))
    terminal.result(
        run_body(done)
        | {"prompts_from": prompts_from(given=asked)}
        | {"occupancy": [one.to_json() for one in used]}
    )


def certify(
    model: Annotated[str, Option("MODEL|PROGRAM", "A MODEL to compile, or a program folder.")],
    prompts: Prompts,
    options: OneStep,
    changes: ModelOptions,
    certifying: Certifying,
    given: Given,
    on: RackOptions,
) -> None:
    """Compile, check, prove, run; compare the bits with every other way to them (exit 1 if any differs).

    Examples:
      lpu certify llama-tiny --rack quad --tokens 8
      lpu certify program
      lpu certify ./my-hf-folder --prompt Hello -o certificate.json
    """
    from lpu import api
    from lpu.cli.show_run import estimated, failures, prompts_from, show_certificate
    from lpu.decode.generate import steps_needed
    from lpu.folder import load_handover
    from lpu.inputs.prompts import made_up
    from lpu.outputs.write import write_json

    terminal, output, wanted, rack = TERMINAL.get(), certifying.output, prompts.chosen(), on.named()
    if output:
        api.check_writable(output)
    with progress() as bar:
        saved, long, moves = None, None, (None, None)
        if is_program(model):
            given.refuse(sorted((OF_A_MODEL | {"python"}) & given), "has no meaning for a saved program")
            saved = api.load_step(model)
            long, moves = api.load_prefill(model, saved), load_handover(model)
            opened = api.reopen(saved.manifest, changes.weights, None, changes.trust)
        else:
            opened = api.open_model(model, **changes.given(len(wanted) if wanted else None))
        terminal.notes(opened.notes)
        asked = wanted is not None
        if wanted:
            wanted = api.prompt_ids(wanted, opened, opened.vocab, chat=prompts.chat)
        else:
            chunk = long.manifest.chunk if long else 0
            chunk = chunk if chunk + prompts.tokens <= max(opened.contexts) else 0
            wanted = made_up(opened, certifying.prefill or chunk)
        found = api.certify(
            opened,
            rack=rack,
            options=options,
            prompts=wanted,
            tokens=prompts.tokens,
            how=api.CertifyOptions(
                prefill=certifying.prefill,
                plain=certifying.plain,
                pythons=certifying.python,
                stream=certifying.stream,
                estimated=estimated(terminal, steps_needed(wanted, prompts.tokens)),
                chunks=long,
                moves=moves,
                corrupt=certifying.corrupt,
            ),
            program=saved,
            progress=bar,
        )
    body = found.to_json() | {"prompts_from": prompts_from(given=asked)}
    if output:
        write_json(output, body)
    show_certificate(terminal, found, output, given=asked)
    terminal.result(body)
    if not found.ok:
        terminal.error("certify: " + failures(found))
        raise typer.Exit(DIFFERENT)


def is_program(source: str) -> bool:
    """Whether the argument is a program folder (perhaps a broken one) rather than a model."""
    from lpu.inputs.foreign import foreign
    from models.catalog import is_named

    path = Path(source)
    if is_named(source) or not path.is_dir() or (path / "config.json").is_file():
        return False
    return (path / "manifest.json").is_file() or not foreign(path)


OF_A_MODEL = frozenset(
    {
        "rack",
        "fault",
        "prefill",
        *(field.name for field in options_of(CompileOptions) + options_of(ModelOptions)),
    }
) - {"weights", "trust"}
"""Options that change what is compiled: a program is compiled already, so each is an error, not ignored."""

VERBS = (run, certify)
