"""Verbs that execute: run, certify."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpu.cli.options import (
    DEFAULT_RACK,
    Batch,
    Context,
    Cp,
    Debug,
    Json,
    Kv,
    Layout,
    Model,
    NoCheck,
    Placement,
    Pp,
    Prefill,
    PromptIds,
    Prompts,
    RackName,
    Seed,
    Stream,
    Tokens,
    Tp,
    Weights,
    chosen_prompts,
    compile_options,
    model_options,
)
from lpu.cli.terminal import TERMINAL, progress

DIFFERENT = 1


def run(
    program: Annotated[
        str, typer.Argument(metavar="PROGRAM|MODEL", help="A program folder, or a MODEL to compile.")
    ],
    rack: RackName = None,
    prompt: Prompts = None,
    prompt_ids: PromptIds = None,
    tokens: Tokens = 16,
    tp: Tp = None,
    pp: Pp = None,
    cp: Cp = None,
    layout: Layout = None,
    placement: Placement = None,
    seed: Seed = None,
    batch: Batch = None,
    contexts: Context = None,
    kv: Kv = None,
    weights: Weights = None,
    prefill: Prefill = None,
    stream: Stream = None,
    no_check: NoCheck = False,
    json: Json = False,
    debug: Debug = False,
    corrupt: Annotated[bool, typer.Option("--corrupt", hidden=True)] = False,
) -> None:
    """Decode greedily, token by token: link the program and run it, with its cycles beside the text."""
    from lpu import api
    from lpu.cli.show_run import run_body, show_run
    from lpu.report.occupancy import occupancy

    terminal = TERMINAL.get()
    prompts = chosen_prompts(prompt, prompt_ids)
    options = compile_options(tp, pp, layout, placement, seed, cp)
    chosen = model_options(batch, contexts, kv, weights)
    with progress() as bar:
        made: Any
        if is_program(program):
            refuse(rack=rack, tp=tp, pp=pp, cp=cp, layout=layout, placement=placement, seed=seed)
            refuse(batch=batch, context=contexts, kv=kv, prefill=prefill)
            made = api.load_step(program)
            long = api.load_prefill(program, made)
            model = api.reopen(made.manifest, weights)
        else:
            chosen["batch"] = batch or (len(prompts) if prompts else None)
            model = api.open_model(program, **chosen)
            made, long = None, None
        vocab = model.vocab
        ids = api.prompt_ids(prompts or api.default_prompts(model.step.batch, vocab), model, vocab)
        api.check_room(ids, tokens, model.step.batch, max(model.contexts))
        if made is None:
            compiled = api.compile(
                model,
                rack=rack or DEFAULT_RACK,
                options=options,
                check=not no_check,
                prefill=prefill,
                progress=bar,
            )
            made, long = compiled.program, compiled.prefill
        done = api.run(
            made,
            ids,
            tokens=tokens,
            model=model,
            prefill=long,
            corrupt=corrupt,
            stream=stream,
            progress=bar,
        )
    show_run(terminal, done)
    used = [occupancy(made, bucket) for bucket in sorted(set(done.buckets))]
    for one in used:
        terminal.say(str(one))
    terminal.result(run_body(done) | {"occupancy": [one.to_json() for one in used]})


def certify(
    model: Model,
    rack: RackName = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Certificate file to write.")] = None,
    prompt: Prompts = None,
    prompt_ids: PromptIds = None,
    tokens: Tokens = 16,
    tp: Tp = None,
    pp: Pp = None,
    cp: Cp = None,
    layout: Layout = None,
    placement: Placement = None,
    seed: Seed = None,
    batch: Batch = None,
    contexts: Context = None,
    kv: Kv = None,
    weights: Weights = None,
    prefill: Prefill = None,
    plain: Annotated[bool, typer.Option(help="The numerical-equivalence report against plain f32.")] = True,
    python: Annotated[
        list[str] | None,
        typer.Option("--python", help="Another Python with lpu-emulator (and its JAX) to compare with."),
    ] = None,
    stream: Stream = None,
    json: Json = False,
    debug: Debug = False,
    corrupt: Annotated[str, typer.Option("--corrupt", hidden=True)] = "",
) -> None:
    """Compile, check, run; compare the bits with every other way to get them (exit 1 if any differs)."""
    from lpu import api
    from lpu.cli.show_run import failures, show_certificate
    from lpu.inputs.files import write_json_atomic

    terminal = TERMINAL.get()
    prompts = chosen_prompts(prompt, prompt_ids)
    options = compile_options(tp, pp, layout, placement, seed, cp)
    chosen = model_options(batch or (len(prompts) if prompts else None), contexts, kv, weights)
    if output:
        api.check_writable(output)
    with progress() as bar:
        found = api.certify(
            model,
            rack=rack or DEFAULT_RACK,
            options=options,
            prompts=prompts,
            tokens=tokens,
            plain=plain,
            pythons=python or [],
            prefill=prefill,
            corrupt=corrupt,
            stream=stream,
            progress=bar,
            **chosen,
        )
    body = found.to_json()
    if output:
        write_json_atomic(output, body)
    show_certificate(terminal, found, output)
    terminal.result(body)
    if not found.ok:
        terminal.note("error: certify: " + failures(found))
        raise typer.Exit(DIFFERENT)


def is_program(source: str) -> bool:
    """Whether the argument is a program folder (perhaps a broken one) rather than a model."""
    path = Path(source)
    return path.is_dir() and not (path / "config.json").is_file()


def refuse(**options: object) -> None:
    """A program is compiled already: an option that would change it is an error, not ignored."""
    for name, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"--{name} has no meaning for a program that is compiled already")


VERBS = (run, certify)
