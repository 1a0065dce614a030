"""The page of a program's energy: `lpu energy DIR --html FILE`."""

from lpu.energy.ask import Energy
from lpu.energy.energy import HEADERS, band_text
from lpu.figures.power import power_figure
from lpu.page.html import Page, Section, table

KIND = "modelled, low / mid / high; events are exact for the machine, no price of LP30 is published"


def priced_page(found: Energy) -> Page:
    """Joules and dollars of every bucket, power by cycle at mid prices, and the prices."""
    first = found.steps[0]
    power = [
        power_figure(
            f"power-{one.context}",
            one.watts,
            f"All chips, at mid prices, context {one.context}. Chip {one.peak_chip} comes to "
            f"{one.peak_watts:,.1f} W in cycle {one.peak_cycle:,}. Modelled.",
        )
        for one in found.profiles
    ]
    steps = [
        Section(
            name=f"step-{step.context}",
            title=f"A step at context {step.context}",
            more=table(HEADERS, step.rows())
            + table(
                ("what", "low / mid / high"),
                [
                    ("J a token", band_text(step.joules_per_token)),
                    ("kW of the rack", band_text(step.watts.times(1e-3))),
                    ("USD for a million tokens", band_text(cost.usd)),
                ],
            ),
        )
        for step, cost in zip(found.steps, found.costs, strict=True)
    ]
    prices = [list(map(str, one.to_json().values())) for one in found.prices.every]
    names = list(found.prices.every[0].to_json())
    return Page(
        title="Energy",
        answer=f"{band_text(first.joules_per_token)} J a token at context {first.context} ({KIND})",
        facts=(
            ("program sha256", found.digest),
            ("kind", KIND),
            *((("caution", found.caution),) if found.caution else ()),
        ),
        sections=(
            *([Section(name="power", title="Power", figures=tuple(power))] if power else []),
            *steps,
            Section(name="prices", title="Prices", more=table(names, prices, "prices-table")),
        ),
        report=found.to_json(),
    )
