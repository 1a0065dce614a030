"""The verb `sweep`: what speculative machines change for one model."""

from typing import Annotated

from compiler.options import CompileOptions, Option
from lpu.cli.options import Model, ModelOptions, OneStep
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import Only


def _machines() -> tuple[str, ...]:
    from lpu.future.machines import machines

    return tuple(machines())


def sweep(
    model: Model,
    options: OneStep,
    changes: Annotated[ModelOptions, Only(("batch", "context", "kv", "weights", "trust"))],
    machine: Annotated[
        str | None,
        Option("--machine", "Machines with commas between.", metavar="A,B", shown="all", names=_machines),
    ] = None,
) -> None:
    """What speculative machines change for a model, each against lpx (docs/future.md).

    Examples:
      lpu sweep llama-3.1-8b --context 8192
      lpu sweep llama-3.1-70b --machine lp40,wafer --tp 8
    """
    from lpu import api
    from lpu.future.study import HEADERS

    terminal = TERMINAL.get()
    asked: CompileOptions = options
    with progress() as bar:
        found = api.machines(
            model,
            machine.split(",") if machine is not None else None,
            options=asked,
            progress=bar,
            **changes.given(),
        )
    terminal.say(f"{found.model}, context {found.context:,}, batch {found.batch}")
    terminal.table(HEADERS, found.rows())
    for line in found.notes():
        terminal.say(line)
    terminal.facts(
        [
            (
                "kind",
                "* speculative: nobody has built it; cycles exact for the stated machine, afd modelled",
            ),
        ]
    )
    terminal.result(found.to_json())


VERBS = (sweep,)
