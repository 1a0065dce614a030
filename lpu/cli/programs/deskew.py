"""The verb `deskew`. Nothing heavy is imported before it runs."""

import typer

from lpu.cli.options import ProgramFolder
from lpu.cli.terminal import TERMINAL
from lpu.deskew.options import DeskewOptions

BROKEN = 4


def deskew(program: ProgramFolder, how: DeskewOptions) -> None:
    """Clocks that drift: whether no transfer misses its cycle, and the largest drift (exit 4 if one does).

    Examples:
      lpu deskew program
      lpu deskew program --drift-ppm 200 --every 10000 --margin 4
    """
    from lpu import api

    terminal = TERMINAL.get()
    found = api.deskew(program, how)
    terminal.say(str(found))
    terminal.result(found.to_json())
    if not found.ok:
        raise typer.Exit(BROKEN)


VERBS = (deskew,)
