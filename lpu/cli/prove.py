"""The verb that proves."""

import typer

from lpu.cli.options import ProgramFolder
from lpu.cli.terminal import TERMINAL

REFUSED = 1


def prove(program: ProgramFolder) -> None:
    """Prove that a program computes its model, for every input, without running it (exit 1 if refused).

    Examples:
      lpu prove program
      lpu prove program --json
    """
    from lpu.folder import load_handover, load_prefill, load_step
    from lpu.prove.programs import prove_programs

    terminal = TERMINAL.get()
    loaded = load_step(program)
    ingest, egress = load_handover(program)
    found = prove_programs(loaded, load_prefill(program, loaded), ingest, egress)
    terminal.say(str(found))
    terminal.result({"schema": "lpu-prove/1", "program_sha256": loaded.manifest.digest} | found.to_json())
    if not found.ok:
        raise typer.Exit(REFUSED)


VERBS = (prove,)
