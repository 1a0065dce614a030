"""The verb that proves."""

from typing import Annotated

import typer

from compiler.options import Option
from lpu.cli.options import ProgramFolder
from lpu.cli.terminal import TERMINAL

REFUSED = 1


def prove(
    program: ProgramFolder,
    model: Annotated[
        str | None,
        Option(
            "--model",
            "The module:factory of the user's own that the program was compiled from; its code is imported.",
            metavar="NAME",
        ),
    ] = None,
) -> None:
    """Prove that a program computes its model, for every input, without running it (exit 1 if refused).

    Examples:
      lpu prove program
      lpu prove program --model parallel:Parallel
    """
    from lpu.folder import load_handover, load_prefill, load_step
    from lpu.prove.programs import prove_programs

    terminal, own = TERMINAL.get(), None
    loaded = load_step(program)
    if model is not None:
        from lpu.inputs.open import reopen_module
        from lpu.modules import readers_of

        own = readers_of(reopen_module(loaded.manifest, model))
    ingest, egress = load_handover(program)
    found = prove_programs(loaded, load_prefill(program, loaded), ingest, egress, own)
    terminal.say(str(found))
    terminal.result({"schema": "lpu-prove/1", "program_sha256": loaded.manifest.digest} | found.to_json())
    if not found.ok:
        raise typer.Exit(REFUSED)


VERBS = (prove,)
