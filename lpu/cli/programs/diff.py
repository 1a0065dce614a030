"""The verb `diff`. Nothing heavy is imported before it runs."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Option
from lpu.cli.options import model_names
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
    model: Annotated[
        str | None,
        Option("--model", "Of two racks: a model that is compiled for both.", names=model_names),
    ] = None
    html: Annotated[
        str | None, Option("--html", "Also write a page: one HTML file (page extra).", metavar="FILE")
    ] = None


def diff(
    a: Annotated[
        str,
        Option(
            "A",
            "A program folder; JSON of lpu report, afd or replay; a rack; or a placement of lpu compare -o, "
            "as RESULTS/annealing:0.",
        ),
    ],
    b: Annotated[str, Option("B", "Another one of its kind.")],
    how: Differing,
) -> None:
    """Say why B takes other cycles than A: what they were compiled from, blocks, units, links, waits.

    Examples:
      lpu diff before after
      lpu diff before after --no-again --json
      lpu diff before after --html diff.html
      lpu diff afd-before.json afd-after.json
      lpu diff lpx lpx-16x16 --model llama-3.1-8b
      lpu diff results/contiguous results/annealing:0
    """
    from lpu import api

    terminal = TERMINAL.get()
    with progress() as bar:
        found = api.diff(a, b, context=how.context, again=how.again, model=how.model, progress=bar)
    terminal.say(str(found))
    if how.html is not None:
        terminal.say(str(api.page(found, how.html)))
    terminal.result(found.to_json())


VERBS = (diff,)
