"""The verb `diff`. Nothing heavy is imported before it runs."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Option
from lpu.cli.terminal import TERMINAL, progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """Which steps are held against each other, and how their causes are found."""

    context: Annotated[
        int | None, Option("--context", "Context bucket of both.", shown="the longest of each")
    ] = None
    again: Annotated[
        bool,
        Option("--again/--no-again", "Compile with one thing changed at a time, to tell causes apart."),
    ] = True
    html: Annotated[
        str | None, Option("--html", "Also write a page: one HTML file (page extra).", metavar="FILE")
    ] = None


def diff(
    a: Annotated[str, Option("A", "A program folder, or a file of lpu report --json.")],
    b: Annotated[str, Option("B", "Another one.")],
    how: Differing,
) -> None:
    """Say why program B takes other cycles than A: what they were compiled from, blocks, units, links, waits.

    Examples:
      lpu diff before after
      lpu diff before after --no-again --json
      lpu diff before after --html diff.html
    """
    from lpu import api

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.diff(a, b, context=how.context, again=how.again, progress=bar)
    terminal.say(str(found))
    if how.html is not None:
        terminal.say(str(api.page(found, how.html)))
    terminal.result(found.to_json())


VERBS = (diff,)
