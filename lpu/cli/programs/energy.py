"""The verb `energy`: what a program costs, in joules and dollars."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.options import Option
from lpu.cli.options import ProgramFolder
from lpu.cli.terminal import TERMINAL

if TYPE_CHECKING:
    from lpu.energy.profile import Profile

BEYOND = 1


def _watts(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of watts") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Prices that are changed, and the power by cycle."""

    set: Annotated[
        tuple[str, ...],
        Option(
            "--set",
            "Another price: static_w=30,105,300 (low, mid, high) or one number for all three; repeatable.",
            metavar="NAME=BAND",
        ),
    ] = ()
    profile: Annotated[
        str | None, Option("--profile", "CSV file for the rack's power over the cycles.", metavar="FILE")
    ] = None
    html: Annotated[
        str | None,
        Option("--html", "Also write a page with the power by cycle (page extra).", metavar="FILE"),
    ] = None
    bins: Annotated[int, Option("--bins", "Lines of the profile at most.", least=1)] = 1000
    power_cap: Annotated[
        float | None,
        Option(
            "--power-cap", "Watts that no chip may pass in any cycle (exit 1).", metavar="W", parse=_watts
        ),
    ] = None


def energy(program: ProgramFolder, asking: Asking) -> None:
    """Energy and cost of a program's steps, as low, mid and high: docs/energy.md has every price.

    Examples:
      lpu energy program
      lpu energy program --set capex_usd=3000000 --power-cap 250
    """
    from lpu import api
    from lpu.energy.energy import HEADERS, band_text
    from lpu.outputs.write import check_writable, write_file

    terminal = TERMINAL.get()
    for path, option in ((asking.profile, "--profile"), (asking.html, "--html")):
        if path is not None:
            check_writable(path, option)
    found = api.energy(
        program,
        changed=asking.set,
        profiled=not (asking.profile is None and asking.html is None),
        cap_watts=asking.power_cap,
    )
    for step, cost in zip(found.steps, found.costs, strict=True):
        terminal.say(
            f"context {step.context}, {step.tokens} tokens a step, every {step.seconds * 1e6:,.2f} us"
        )
        terminal.table(HEADERS, step.rows())
        terminal.facts(
            [
                ("a token", f"{band_text(step.joules_per_token)} J"),
                ("the rack", f"{band_text(step.watts.times(1e-3))} kW, {step.chips} chips"),
                ("tokens/s", f"{cost.tokens_per_second:,.0f} while steps follow one another"),
                ("M tokens", f"{band_text(cost.usd)} USD: capital {band_text(cost.capex)}, "
                 f"electricity {band_text(cost.electricity)}"),
            ]
        )  # fmt: skip
    for one in found.profiles:
        terminal.facts([("power", _peak(one))])
    if asking.profile is not None:
        write_file(asking.profile, found.profiles[0].csv(asking.bins).encode(), "--profile")
    if asking.html is not None:
        terminal.say(str(api.page(found, asking.html)))
    terminal.facts(
        [
            (
                "kind",
                "modelled, low / mid / high; events are exact for the machine, no price of LP30 is published",
            ),
            *([("caution", found.caution)] if found.caution else []),
        ]
    )
    terminal.result(found.to_json())
    if not found.passed:
        terminal.error(f"energy: a chip passes --power-cap {asking.power_cap:g} W. See the lines above.")
        raise typer.Exit(BEYOND)


def _peak(one: "Profile") -> str:
    return (
        f"chip {one.peak_chip} at most {one.peak_watts:,.1f} W, in cycle {one.peak_cycle:,}; the rack "
        f"{one.watts.mean() / 1e3:,.2f} kW on average, {one.watts.max() / 1e3:,.2f} at most (mid prices, "
        f"context {one.context})"
    )


VERBS = (energy,)
