"""The verb `spares`. Nothing heavy is imported before it runs."""

from typing import Annotated

from compiler.options import CompileOptions
from lpu.cli.options import Model, ModelOptions, RackOptions
from lpu.cli.terminal import TERMINAL, progress
from lpu.cli.verb import Only
from lpu.spares.availability import FailureRates


def spares(
    model: Model,
    rates: FailureRates,
    options: Annotated[CompileOptions, Only(("tp", "pp", "cp", "layout", "objective", "users"))],
    changes: ModelOptions,
    on: RackOptions,
) -> None:
    """Compare spare chips, trays and racks: capacity, latency with a fault, share of time that a rack serves.

    Examples:
      lpu spares llama-tiny --rack lpx
      lpu spares llama-3.1-70b --tp 8 --chip-fit 12600 --repair-hours 24
    """
    from lpu import api
    from lpu.spares.ask import HEADERS

    terminal = TERMINAL.get()
    with progress() as bar:
        opened = api.open_model(model, **changes.given())
        terminal.notes(opened.notes)
        found = api.spares(opened, rack=on.named(), rates=rates, options=options, progress=bar)
    terminal.table(HEADERS, found.rows())
    terminal.say(found.ends())
    terminal.result(found.to_json())


VERBS = (spares,)
