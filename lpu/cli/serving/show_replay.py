"""The text of `lpu replay`."""

from lpu.cli.terminal import Terminal
from lpu.traffic.reports.report import HEADERS, ReplayReport


def show_replay(report: ReplayReport, terminal: Terminal) -> None:
    """The machine, the spans, what else came of it, and what all of it rests on."""
    terminal.facts(list(report.machine))
    terminal.say("")
    terminal.table(HEADERS, report.rows())
    terminal.say("")
    terminal.facts(report.facts())
    for warning in report.warnings:
        terminal.say(f"warning: {warning}")
    terminal.facts(
        [
            ("assumed", ", ".join(report.assumptions.get("assumed", []))),
            ("label", f"{report.label}; {report.kinds}"),
        ]
    )
