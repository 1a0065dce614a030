"""Verbs that execute: run, certify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpu.cli_options import (
    Batch,
    Context,
    Debug,
    Json,
    Kv,
    Layout,
    Model,
    NoCheck,
    Placement,
    Pp,
    PromptIds,
    Prompts,
    RackName,
    Seed,
    Tokens,
    Tp,
    Weights,
    chosen_prompts,
    compile_options,
    model_options,
)
from lpu.terminal import Terminal, progress

if TYPE_CHECKING:
    from lpu.api import Run
    from lpu.certify import Certificate

DIFFERENT = 1
WORDS = {True: "equal", False: "DIFFERENT", None: "not compared"}


def run(
    context: typer.Context,
    program: Annotated[
        str, typer.Argument(metavar="PROGRAM|MODEL", help="A program folder, or a MODEL to compile.")
    ],
    rack: RackName = "lpx",
    prompt: Prompts = None,
    prompt_ids: PromptIds = None,
    tokens: Tokens = 16,
    tp: Tp = None,
    pp: Pp = None,
    layout: Layout = "column",
    placement: Placement = "contiguous",
    seed: Seed = 0,
    batch: Batch = None,
    contexts: Context = None,
    kv: Kv = None,
    weights: Weights = None,
    no_check: NoCheck = False,
    json: Json = False,
    debug: Debug = False,
    corrupt: Annotated[bool, typer.Option("--corrupt", hidden=True)] = False,
) -> None:
    """Decode greedily, token by token: link the program and run it, with its cycles beside the text."""
    from lpu import api
    from lpu.report import occupancy

    terminal: Terminal = context.obj
    prompts = chosen_prompts(prompt, prompt_ids)
    options = compile_options(tp, pp, layout, placement, seed)
    chosen = model_options(batch, contexts, kv, weights)
    with progress() as bar:
        made: Any
        if is_program(program):
            made = api.load_program(program)
            model = api.reopen(made.manifest, weights)
        else:
            chosen["batch"] = batch or (len(prompts) if prompts else None)
            model = api.open_model(program, **chosen)
            made = None
        vocab = model.vocab
        ids = api.prompt_ids(prompts or api.default_prompts(model.step.batch, vocab), model, vocab)
        api.check_room(ids, tokens, model.step.batch, max(model.contexts))
        if made is None:
            made = api.compile(model, rack=rack, options=options, check=not no_check, progress=bar).program
        done = api.run(made, ids, tokens=tokens, model=model, corrupt=corrupt, progress=bar)
    show_run(terminal, done)
    used = [occupancy(made, bucket) for bucket in sorted(set(done.buckets))]
    for one in used:
        terminal.say(str(one))
    terminal.result(run_body(done) | {"occupancy": [one.to_json() for one in used]})


def certify(
    context: typer.Context,
    model: Model,
    rack: RackName = "lpx",
    output: Annotated[str | None, typer.Option("-o", "--output", help="Certificate file to write.")] = None,
    prompt: Prompts = None,
    prompt_ids: PromptIds = None,
    tokens: Tokens = 16,
    tp: Tp = None,
    pp: Pp = None,
    layout: Layout = "column",
    placement: Placement = "contiguous",
    seed: Seed = 0,
    batch: Batch = None,
    contexts: Context = None,
    kv: Kv = None,
    weights: Weights = None,
    plain: Annotated[bool, typer.Option(help="The numerical-equivalence report against plain f32.")] = True,
    json: Json = False,
    debug: Debug = False,
    corrupt: Annotated[str, typer.Option("--corrupt", hidden=True)] = "",
) -> None:
    """Compile, check and run a model, and compare the bits with every other way to get them (exit 1 if any differs)."""
    from lpu import api
    from lpu.files import write_json_atomic

    terminal: Terminal = context.obj
    prompts = chosen_prompts(prompt, prompt_ids)
    options = compile_options(tp, pp, layout, placement, seed)
    chosen = model_options(batch or (len(prompts) if prompts else None), contexts, kv, weights)
    if output:
        api.check_writable(output)
    with progress() as bar:
        found = api.certify(
            model,
            rack=rack,
            options=options,
            prompts=prompts,
            tokens=tokens,
            plain=plain,
            corrupt=corrupt,
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


def show_run(terminal: Terminal, done: "Run") -> None:
    """The text and ids of each sequence, then what it took."""
    body, clock = run_body(done), done.program.manifest["clock_hz"]
    for i, one in enumerate(body["sequences"]):
        if one["text"] is not None:
            terminal.say(f"text {i}      {one['text']!r}")
        terminal.say(
            f"ids {i}       {','.join(map(str, one['prompt_ids']))} -> {','.join(map(str, one['token_ids']))}"
        )
    buckets = ", ".join(f"{done.buckets.count(b)} in context {b}" for b in sorted(set(done.buckets)))
    terminal.facts(
        [
            ("steps", f"{done.generation.steps} ({buckets})"),
            (
                "latency",
                f"{body['mean_latency_cycles']:,.0f} cycles = {body['mean_latency_microseconds']:.2f} us per token "
                f"(modelled, at an assumed clock of {clock / 1e9:.4f} GHz)",
            ),
            ("emulated", f"{body['emulated_seconds_per_step']:.4f} s per step here (measured, median)"),
            ("program", body["program_sha256"]),
            ("logits", body["logits_sha256"]),
        ]
    )


def run_body(done: "Run") -> dict[str, Any]:
    """A run as JSON values."""
    manifest, generation = done.program.manifest, done.generation
    texts = done.texts or [None] * len(generation.prompts)
    cycles = sum(done.cycles) / len(done.cycles)
    seconds = sorted(generation.seconds)
    return {
        "schema": "lpu-run/1",
        "model": manifest["model"],
        "rack": manifest["rack"],
        "options": manifest["options"],
        "sequences": [
            {"prompt_ids": list(prompt), "token_ids": list(tokens), "text": text}
            for prompt, tokens, text in zip(generation.prompts, generation.tokens, texts, strict=True)
        ],
        "steps": generation.steps,
        "steps_per_context": {str(b): done.buckets.count(b) for b in sorted(set(done.buckets))},
        "total_cycles": sum(done.cycles),
        "mean_latency_cycles": cycles,
        "mean_latency_microseconds": done.microseconds_per_token,
        "clock_hz": manifest["clock_hz"],
        "emulated_seconds_per_step": seconds[len(seconds) // 2],
        "inputs_sha256": manifest["inputs"],
        "program_sha256": manifest["digest"],
        "logits_sha256": generation.digest,
    }


def show_certificate(terminal: Terminal, found: "Certificate", output: str | None) -> None:
    """The table of comparisons, then what was certified, then the f32 reports, apart."""
    terminal.table(
        ("compared with", "bits", "logits", "program", "remark"),
        [
            [one.name, WORDS[one.equal], one.logits_sha256[:16], one.program_sha256[:16], one.detail]
            for one in found.comparisons
        ],
    )
    cycles = ", ".join(
        f"{count:,} cycles = {count * 1e6 / found.clock_hz:.2f} us per token at context {context}"
        for context, count in found.cycles_per_token.items()
    )
    facts = [
        ("model", f"{found.model['name']}, weights {found.model['weights']}"),
        ("rack", found.rack),
        ("checked", f"{found.rows_checked:,} rows, all rules hold"),
        ("latency", f"{cycles} (modelled)"),
        ("inputs", found.inputs_sha256),
        ("program", found.program_sha256),
        ("logits", found.logits_sha256),
        ("verdict", "bits equal" if found.ok else "NOT certified: " + failures(found)),
    ]
    if found.numerical_equivalence:
        facts.append(("f32", str(found.numerical_equivalence)))
    if found.quantisation:
        facts.append(("quantised", str(found.quantisation)))
    if output:
        facts.append(("saved", output))
    terminal.facts(facts)


def failures(found: "Certificate") -> str:
    """Which comparisons differ."""
    names = [one.name for one in found.comparisons if one.equal is False]
    return f"{len(names)} of {len(found.comparisons)} comparisons differ: {', '.join(names)}."


VERBS = (run, certify)
