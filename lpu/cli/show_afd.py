"""The text of `lpu afd` and `lpu ratios`."""

from lpu.afd.ratios import RatioSweep
from lpu.afd.report import CAUTION, PROJECTION, AfdReport, milliseconds, part_rows, turn_rows
from lpu.cli.terminal import Terminal

TURNS = ("turn", "TTFT", "TPOT", "end to end", "reused tokens", "bytes over the bridge")
PARTS = ("of", "part", "time", "known as")
POINTS = (
    "GPUs",
    "LPUs",
    "batch",
    "m",
    "TPOT",
    "GPUs alone",
    "tokens/s/user",
    "tokens/s/rack",
    "alone",
    "over alone",
    "set by",
    "verdict",
)


def show_afd(report: AfdReport, terminal: Terminal) -> None:
    """Turns, parts, figures, the boundary, and what all of it rests on."""
    terminal.facts([("mode", report.mode), *report.machine])
    terminal.say("")
    terminal.table(TURNS, turn_rows(report.turns))
    terminal.say("")
    terminal.table(PARTS, part_rows(report))
    terminal.say("")
    rows = [(figure.name, str(figure)) for figure in report.figures]
    speeds = f"{report.per_user:,.1f} per user, {report.per_rack:,.1f} per rack of LPUs while decoding"
    rows.append(("tokens/s", f"{speeds}; {report.sustained:,.1f} sustained, prefills and all"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        terminal.say(f"{name:<{width}}  {value}")
    if report.boundary:
        terminal.say("")
        terminal.say(str(report.boundary))
    for warning in report.warnings:
        terminal.say(f"warning: {warning}")
    terminal.say("")
    band = f"; GPU times carry a band of +-{100 * report.band:g} %" if report.band else ""
    terminal.facts(
        [
            ("assumed", ", ".join(report.assumptions.get("assumed", []))),
            ("label", PROJECTION + band),
            ("caution", CAUTION),
        ]
    )
    if report.bits is not None:
        counts = ", ".join(f"{name} {count:,}" for name, count in report.counts.items())
        terminal.facts(
            [("bits", f"{report.bits} to the reference ({counts})" if report.equal else report.bits)]
        )


def _rule(target: float | None) -> str:
    """What decides a verdict, in words."""
    rule = "wins where tokens/s/rack are more than those of the same GPUs alone (over alone above 1)"
    if target is None:
        return f"{rule}, or the GPUs alone cannot hold it"
    return f"{rule} or the GPUs alone miss the target of {1000 * target:g} ms; too slow where both miss it"


def show_ratios(sweep: RatioSweep, terminal: Terminal) -> None:
    """Every point, the best one, and where dividing loses."""
    rows: list[list[str]] = []
    for point in sweep.points:
        timed = point.tpot is not None
        rows.append(
            [
                str(point.gpus),
                str(point.lpus),
                str(point.batch),
                str(point.micro_batches),
                milliseconds(round(point.tpot * 1e12)) if point.tpot else "-",
                milliseconds(round(point.alone * 1e12)) if point.alone else "-",
                f"{1 / point.tpot:,.1f}" if point.tpot else "-",
                f"{point.per_rack:,.1f}" if timed else "-",
                f"{point.alone_per_rack:,.1f}" if point.alone else "-",
                f"{point.over_alone:.2f} x" if point.over_alone is not None else "-",
                point.binding or "-",
                point.verdict(sweep.target) if timed else point.refused,
            ]
        )
    terminal.table(POINTS, rows)
    terminal.say("")
    terminal.facts(
        [
            ("best", sweep.best_line),
            ("losing", sweep.losing),
            ("verdict", _rule(sweep.target)),
            ("racks", "72 GPUs or 256 LPUs count as one rack (assumed)"),
            ("machine", sweep.machine),
            ("label", PROJECTION),
            ("caution", CAUTION),
        ]
    )
