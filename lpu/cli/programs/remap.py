"""The verb `remap`. Nothing heavy is imported before it runs."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated

import typer

from compiler.options import Check, Option, Prove
from lpu.cli.options import FaultNames, ProgramFolder
from lpu.cli.terminal import TERMINAL, progress
from lpu.remap.options import RemapOptions

BROKEN = 4
REFUSED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Remapping:
    """What is broken, where the program is from, and what is made of it."""

    fault: FaultNames = ()
    output: Annotated[
        str | None, Option("-o --output", "Folder to write the new program into.", metavar="DIR")
    ] = None
    rack: Annotated[
        str | None,
        Option("--rack", "The rack of the program.", metavar="RACK", shown="the one that its manifest tells"),
    ] = None
    model: Annotated[
        str | None,
        Option(
            "--model",
            "The module:factory of the user's own that the program was compiled from; its code is imported.",
            metavar="NAME",
        ),
    ] = None
    check: Check = True
    prove: Prove = None


def remap(program: ProgramFolder, remapping: Remapping, how: RemapOptions) -> None:
    """A program again on what faults leave of its rack: what moves, when it serves again, who loses what.

    Examples:
      lpu remap program --fault chip:17 -o remapped
      lpu remap program --fault tray:2 --fault link:3-40 --prefer moves
      lpu remap program --fault broken.yaml --degrade context,users
    """
    from lpu import api
    from lpu.folder import save_into
    from lpu.outputs.write import atomic_folder

    terminal, output = TERMINAL.get(), remapping.output
    with nullcontext() if output is None else atomic_folder(output) as folder, progress() as bar:
        found = api.remap(
            program,
            remapping.fault,
            rack=remapping.rack,
            how=how,
            factory=remapping.model,
            progress=bar,
        )
        checked = None
        if remapping.check:
            made = api.Compiled(
                program=found.program, model=found.model, rack=found.rack, prefill=found.prefill
            )
            checked = api.check(made, prove=remapping.prove, progress=bar)
        if folder is not None:
            save_into(folder, found.program, found.prefill)
    terminal.facts(found.facts)
    if checked is not None:
        terminal.say(str(checked))
    if output:
        terminal.say(f"saved       {output}")
    terminal.result(
        found.to_json() | {"folder": output, "checked": None if checked is None else checked.to_json()}
    )
    if checked is not None and not checked.ok:
        raise typer.Exit(BROKEN)
    if checked is not None and not checked.proved:
        raise typer.Exit(REFUSED)


VERBS = (remap,)
