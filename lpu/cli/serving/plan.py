"""The verb that answers with configurations: plan."""

from typing import Annotated

import typer

from lpu.cli.options import Model, ModelOptions
from lpu.cli.terminal import TERMINAL, Terminal, progress
from lpu.cli.verb import Only
from lpu.plan.options import PlanOptions
from lpu.plan.verdict import Judged, Ranking

HEADERS = (
    "rack",
    "racks",
    "LPUs",
    "users",
    "GPUs",
    "mode",
    "objective",
    "batch",
    "TTFT",
    "TPOT",
    "margin",
    "busy",
    "J/token",
)
REFUSED = ("rack", "racks", "LPUs", "GPUs", "mode", "objective", "batch", "why not")
MOST = 12  # rows of each table in text


def plan(
    model: Model,
    asked: PlanOptions,
    changes: Annotated[ModelOptions, Only(("kv", "weights", "trust"))],
) -> None:
    """Configurations that meet targets under a load, the cheapest first, each verified by a replay.

    Examples:
      lpu plan llama-3.1-70b --rate 10 --isl 4000 --osl 300 --ttft 1000 --tpot 5
      lpu plan llama-tiny --rate 1 --isl 50 --osl 9 --ttft 500 --tpot 30 --modes afd
    """
    from lpu.plan.plan import plan as planned

    terminal = TERMINAL.get()
    with progress() as bar:
        found = planned(model, asked, progress=bar, **changes.given())
    _show(found, asked, terminal)
    terminal.result(found.to_json())
    if not found.good:
        terminal.note("error: plan: no configuration that was tried meets the targets")
        raise typer.Exit(1)


def _show(found: Ranking, asked: PlanOptions, terminal: Terminal) -> None:
    from lpu.plan.front import plot

    terminal.table(HEADERS, [_row(one) for one in found.good[:MOST]])
    if len(found.good) > MOST:
        terminal.say(f"... and {len(found.good) - MOST} more that meet the targets (--json has all)")
    terminal.say("")
    terminal.table(REFUSED, [_refused(one) for one in found.refused[:MOST]])
    if len(found.refused) > MOST:
        terminal.say(f"... and {len(found.refused) - MOST} more that do not (--json has all)")
    terminal.say("")
    if drawn := plot(found.good, found.refused, asked.ttft):
        terminal.say(drawn)
        terminal.say("")
    if found.good:
        terminal.facts([("compile", found.good[0].compiled), ("replay", found.good[0].replayed)])
    terminal.say("plan.yaml:")
    terminal.say(found.drawing)
    terminal.facts([*(("note", one) for one in found.notes), ("label", found.label)])


def _row(one: Judged) -> list[str]:
    chosen, ms = one.configuration, 1000.0
    busy = f"{one.slots_busy:.0%}" + (f", {one.gpus_busy:.0%}" if one.gpus_busy is not None else "")
    return [
        chosen.rack,
        f"{chosen.racks:.3f}",
        str(chosen.chips),
        str(chosen.users),
        chosen.beside(),
        chosen.mode,
        chosen.objective,
        str(chosen.batch),
        f"{(one.ttft or 0) * ms:,.1f} ms",
        f"{(one.tpot or 0) * ms:,.3f} ms",
        f"{one.margin:.1%}",
        busy,
        " to ".join(f"{value:.3g}" for value in one.joules_per_token[::2]) if one.joules_per_token else "-",
    ]


def _refused(one: Judged) -> list[str]:
    chosen = one.configuration
    lpus = str(chosen.chips) if chosen.chips else "-"
    machine = [chosen.rack, f"{chosen.racks:.3f}", lpus, chosen.beside(), chosen.mode]
    return [*machine, chosen.objective, str(chosen.batch), one.reason]


VERBS = (plan,)
