"""The verb `upsets`. Nothing heavy is imported before it runs."""

from typing import Annotated

import typer

from compiler.options import Option
from lpu.cli.options import ProgramFolder
from lpu.cli.terminal import TERMINAL, progress
from lpu.upsets.options import UpsetOptions

DIFFERENT = 1


def upsets(
    program: ProgramFolder,
    how: UpsetOptions,
    weights: Annotated[
        str | None,
        Option("--weights", "Of a run: safetensors:PATH, orbax:PATH or seed:N.", shown="the program's"),
    ] = None,
) -> None:
    """Errors that pass, of links and SRAM: replays by the closed form, and in a run with real math.

    Examples:
      lpu upsets program
      lpu upsets program --frame-loss 1e-9 --tokens 5000 --seed 1
      lpu upsets program --frame-loss 1e-4 --tokens 100 --run
    """
    from lpu import api

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.upsets(program, how, weights=weights, progress=bar)
    terminal.say(str(found))
    terminal.result(found.to_json())
    if found.ran is not None and not found.ran.bits_equal:
        raise typer.Exit(DIFFERENT)


VERBS = (upsets,)
