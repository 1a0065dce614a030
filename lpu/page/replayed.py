"""The page of a replay: `lpu replay --html FILE`."""

from lpu.figures.distributions import arrivals_figure, busy_figure
from lpu.page.html import Page, Section, rests_on, table
from lpu.report.words import percent
from lpu.traffic.reports.report import ReplayReport


def replay_page(found: ReplayReport) -> Page:
    """Distributions, times by arrival, what was busy, and what all of it rests on."""
    ttft = found.spans.get("TTFT")
    first = f"{1000 * ttft.at(0.5).value:,.3f} ms to the first token at p50" if ttft else "nobody was served"
    seed = "" if len(found.seeds) == 1 else f" of seed {found.seeds[0]}"
    met = f"met the targets ({percent(found.good)})" if found.target_words else "served, no target stated"
    busy = [(one.name, one.share, one.remark) for one in found.resources]
    arrivals = arrivals_figure(
        found.arrivals,
        f"Requests{seed} that were served, at most {found.MOST_POINTS:,} of them: {found.basis}.",
    )
    return Page(
        title=f"A replay of {dict(found.machine)['trace']}",
        answer=f"{found.goodput:,.3f} requests a second {met}, {first}",
        facts=(
            *found.machine,
            *found.facts(),
            ("label", f"{found.label}; {found.kinds}"),
        ),
        sections=(
            Section(name="spans", title="Distributions", figures=(found.drawing(),)),
            Section(name="over-time", title="By arrival", figures=(arrivals,)),
            Section(name="parts", title="Busy", figures=(busy_figure(busy),)),
            rests_on(
                found.assumptions,
                table(("warning",), [(one,) for one in found.warnings]),
                (("program sha256", found.digest), ("seeds", ", ".join(map(str, found.seeds)))),
            ),
        ),
        report=found.to_json(),
    )
