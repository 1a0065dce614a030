"""The page of GPUs and LPUs together: `lpu afd --html FILE`."""

from collections.abc import Iterable, Iterator

from lpu.afd.report import CAUTION, PROJECTION, AfdReport, milliseconds, part_rows, turn_rows
from lpu.figures.sides import Span, sides_figure
from lpu.gpu.units import PS_PER_US, Part
from lpu.page.html import Page, Section, inert_lines, rests_on, table

TURNS = ("turn", "TTFT", "TPOT", "end to end", "reused tokens", "bytes over the bridge")
PARTS = ("of", "part", "time", "known as")


def divided_page(report: AfdReport) -> Page:
    """Both sides in time, one layer with its slot and slack, turns, figures, and what they rest on."""
    last = report.turns[-1]
    spans = [
        Span(f"{e.side}: {e.thread}", e.name, e.begin / PS_PER_US, e.end / PS_PER_US, e.basis)
        for e in report.events
    ]
    figures = [(one.name, str(one)) for one in report.figures]
    slots = inert_lines(str(report.boundary)) if report.boundary else ""
    band = f"; GPU times carry a band of +-{100 * report.band:g} %" if report.band else ""
    whole = sides_figure(
        "sides-figure",
        "Both sides in time",
        "What GPUs, links and LPUs do, from an empty pipeline on. LPUs are exact, the others modelled. "
        "Gaps are waits.",
        spans,
    )
    layer = sides_figure(
        "layer-figure",
        f"Of {report.layer_name}",
        f"Its parts in their order, {report.layer_name}. The wait for the slot is the slack that the LPUs "
        "give the GPUs.",
        list(_in_turn(report.layer)),
    )
    return Page(
        title=f"{dict(report.machine)['model']} by {report.mode}",
        answer=f"{milliseconds(last.tpot)} a token, {milliseconds(last.ttft)} to the first ({PROJECTION})",
        facts=(("mode", report.mode), *report.machine, ("label", PROJECTION + band), ("caution", CAUTION)),
        sections=(
            Section(name="sides", title="Both sides", figures=(whole,)),
            Section(name="layer", title="Slot and slack", figures=(layer,), more=slots),
            Section(
                name="turns",
                title="Turns and parts",
                more=table(TURNS, turn_rows(report.turns), "turns-table")
                + table(PARTS, part_rows(report), "parts-table"),
            ),
            Section(
                name="figures",
                title="Figures and warnings",
                more=table(("figure", "value"), figures, "figures-table")
                + table(("warning",), [(one,) for one in report.warnings]),
            ),
            rests_on(report.assumptions),
        ),
        report=report.to_json(),
    )


def _in_turn(parts: Iterable[Part]) -> Iterator[Span]:
    """Parts one after another, each on a line of its own."""
    at = 0
    for part in parts:
        end = at + part.picoseconds
        yield Span(part.name, part.name, at / PS_PER_US, end / PS_PER_US, part.basis)
        at = end
