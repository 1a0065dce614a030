"""`lpu run --drafter`: a small model on a rack proposes tokens, the model's own program judges them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpu.cli.options import ModelOptions, OneStep, Prompts
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import Given

if TYPE_CHECKING:
    from lpu.cli.options import Choices
    from lpu.compiled import Compiled


def draft(
    program: str,
    prompts: Prompts,
    options: OneStep,
    changes: ModelOptions,
    running: Any,
    choosing: "Choices",
    given: Given,
    rack: str,
) -> None:
    """Decode with drafts; the tokens are those of the model's greedy decode."""
    from lpu import api
    from lpu.inputs.document import FileError

    if choosing.given() != api.RunOptions(ignore_eos=choosing.ignore_eos):
        raise FileError(
            "draft: tokens are chosen greedily and end by --tokens. Leave out --temperature and --stop."
        )
    given.refuse(["stream", "prefill"], "does not go with --drafter: the drafts set the rows of a chunk")
    terminal, wanted = TERMINAL.get(), prompts.chosen()
    with progress() as bar:
        big = _verifier(program, options, changes, running, given, rack, len(wanted) if wanted else None, bar)
        model, manifest = big.model, big.program.manifest
        small = api.compile(
            api.open_model(
                str(running.drafter), batch=manifest.sequences, context=[manifest.longest], weights=None
            ),
            rack=running.drafter_rack or rack,
            check=running.check,
            progress=bar,
        )
        chosen = wanted or api.default_prompts(manifest.sequences, model.vocab)
        ids = api.prompt_ids(chosen, model, model.vocab, chat=prompts.chat)
        eos = choosing.ignore_eos
        done = api.speculate(big, small, ids, tokens=prompts.tokens, ignore_eos=eos, progress=bar)
    tokenizer = model.tokenizer()
    for i, one in enumerate(done.tokens):
        if tokenizer is not None:
            terminal.say(f"text {i}      {tokenizer.decode(one)!r}")
        terminal.say(f"ids {i}       {','.join(map(str, ids[i]))} -> {','.join(map(str, one))}")
    terminal.facts([("model", f"{model.name}, weights {model.about.weights}"), *done.facts])
    terminal.result(done.to_json())


def _verifier(
    program: str,
    options: OneStep,
    changes: ModelOptions,
    running: Any,
    given: Given,
    rack: str,
    sequences: int | None,
    bar: Any,
) -> "Compiled":
    """The model's programs: of a folder, whose prefill program judges, or compiled for the drafts."""
    from lpu import api
    from lpu.inputs.document import FileError
    from lpu.inputs.files import read_rack

    if not (Path(program) / "manifest.json").is_file():
        opened = api.open_model(program, **changes.given(sequences))
        rows, check = running.drafts + 1, running.check
        return api.compile(opened, rack=rack, options=options, check=check, prefill=rows, progress=bar)
    made = api.load_step(program)
    long = api.load_prefill(program, made)
    if long is None:
        raise FileError(
            f"draft: {program} has no prefill program. Compile it with --prefill {running.drafts + 1}."
        )
    if "drafts" in given and long.manifest.chunk != running.drafts + 1:
        raise FileError(
            f"draft: --drafts {running.drafts} takes {running.drafts + 1} rows, the prefill program of "
            f"{program} has {long.manifest.chunk}. Give --drafts {long.manifest.chunk - 1}."
        )
    if running.check:
        api.require_legal(made, long, bar)
    model = api.reopen(made.manifest, changes.weights, running.model, changes.trust)
    return api.Compiled(program=made, model=model, rack=read_rack(rack), prefill=long)
