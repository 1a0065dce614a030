"""The page of a program: rack, schedule, memory, bounds, sensitivities, where it comes from."""

from collections.abc import Sequence
from html import escape
from typing import Any

from compiler.analyse.bounds import Bound
from compiler.analyse.chain import WAITS
from compiler.program.isa import WORD_BYTES
from compiler.program.program import Program
from lpu.diff.sensitivity import Sensitivity
from lpu.figures.bars import bounds_figure, levers_figure
from lpu.figures.memory import live_blocks, live_curves, memory_figure, transient_figure
from lpu.figures.rack import rack_figure
from lpu.figures.schedule import rows_of_blocks, schedule_figure
from lpu.figures.waves import waves_figure
from lpu.page.html import Page, Section, options, table
from lpu.report.program import program_facts
from lpu.report.walk import BlockChain
from lpu.report.words import EXACT, kind, kind_of

UNITS = {
    "all": "all units and links",
    "critical": "the critical path alone",
    "planes": "MXM planes",
    "drains": "drains",
    "chains": "VXM chains",
    "links": "links",
    "lanes": "links, lane by lane",
    "host lanes": "host lanes",
}
BUTTONS = {
    "zoom-in": "Closer",
    "zoom-out": "Further",
    "left": "Earlier",
    "right": "Later",
    "whole": "The whole block",
}
METRIC = '<div class="controls"><label for="metric">Chips by</label><select id="metric"></select></div>'
KINDS = (
    (
        EXACT,
        "cycles, legality, occupancy, bounds: they follow from the program and the machine described",
    ),
    ("published, derived, assumed", "numbers of the machine: how each is known stands beside it"),
    ("modelled", "by a formula that leaves something out: sensitivities where the critical path is kept"),
    ("measured", "timed; nothing on this page is"),
    ("projection", "a label on top: no measurement of this machine is public"),
)
CHIPS = ("chip", "weights, kB", "KV, kB", "transients, kB at most", "their region, kB")
CHAIN = ("does", "chip", "on", "from cycle", "waited", "holds", "until the result")


def program_page(
    program: Program,
    found: Sensitivity,
    chains: Sequence[BlockChain],
    verdicts: Sequence[tuple[str, str]],
    bounds: Sequence[Bound],
    report: dict[str, Any],
) -> Page:
    """The page of one context bucket, that of `found`.

    chains: of its blocks. verdicts: of check and proof. bounds, report: of `lpu report`, as JSON.
    """
    manifest, context = program.manifest, found.context
    cycles = manifest.cycles[context]
    rows = rows_of_blocks(program, context)
    rows["waits_by_unit"] = {str(unit): text.removeprefix("waits for ") for unit, text in WAITS.items()}
    live = live_blocks(program, context)
    rows["live"] = live_curves(live, context)
    rows["regions"] = (manifest.region_table()[:, :, 1] * WORD_BYTES).tolist()
    waves = waves_figure(program, context)
    measured = "hops, one after another," if manifest.hops else "a step"
    us = cycles * 1e6 / manifest.clock_hz
    answer = (
        f"{measured} takes {cycles:,} cycles = {us:.2f} us at context {context} ({kind(manifest.chip.name)})"
    )
    sections = [
        Section(
            name="rack",
            title="Rack",
            figures=(rack_figure(program, context),),
            controls=METRIC,
        ),
        Section(
            name="schedule", title="Schedule", figures=(schedule_figure(program, context),), more=_rows()
        ),
        *([Section(name="waves", title="Waves", figures=(waves,))] if waves else []),
        Section(
            name="memory",
            title="Memory",
            figures=(memory_figure(program), transient_figure(program, context, live)),
            more=_live(),
        ),
        Section(
            name="bounds",
            title="Bounds, and the next 10 %",
            figures=(bounds_figure(bounds, cycles), levers_figure(chains, cycles)),
        ),
        Section(name="sensitivity", title="Sensitivity", figures=(found.drawing(),)),
        Section(name="provenance", title="Where it comes from", more=_provenance(program, verdicts)),
    ]
    return Page(
        title=f"{manifest.model.name} on {manifest.rack}",
        answer=answer[0].upper() + answer[1:],
        facts=tuple(program_facts(program)),
        sections=tuple(sections),
        rows=rows,
        report=report,
    )


def _rows() -> str:
    """What shows the rows of one block; the page's script fills it."""
    buttons = "".join(f'<button type="button" id="{k}">{escape(v)}</button>' for k, v in BUTTONS.items())
    chain = table(CHAIN, (), "chain")
    return (
        '<h3>The rows of a block</h3><p class="about">Bars are rows, from the cycle at which they take their '
        "unit or lanes to the one at which they leave it. The line is the critical path; dotted bars are "
        "what its rows waited for. Exact for the stated machine.</p>"
        '<div class="controls" id="rows-controls"><label for="call">Block</label><select id="call"></select>'
        '<label for="chip">Chip</label><select id="chip"></select>'
        f'<label for="unit">Show</label><select id="unit">{options(UNITS)}</select>{buttons}</div>'
        '<p id="rows-said" aria-live="polite"></p>'
        '<div class="plot" id="plot-rows" data-figure="rows" role="group" style="min-height:420px" '
        'aria-label="Rows of a block on its units and links"></div>'
        f"<details><summary>The critical path of this block, row by row</summary>{chain}</details>"
    )


def _live() -> str:
    """What shows the transients of every chip over the step, and of one chip; the page's script fills it."""
    plot = '<div class="plot" id="plot-{0}" role="group" style="min-height:{2}px" aria-label="{1}"{3}></div>'
    return (
        "<h3>Transients of every chip over the step</h3>"
        '<p class="about">Bytes that wait for a reader, the most of each stretch of cycles; a row is a chip. '
        "What a block hands on counts until the block ends. Weights and KV stay as they are all the time. "
        "Derived from the rows.</p>"
        + plot.format("live", "Transients of every chip by cycle", 420, ' data-figure="live"')
        + _filled("Every chip, as a table", CHIPS, "live-chips")
        + '<div class="controls"><label for="live-chip">Chip</label><select id="live-chip"></select></div>'
        '<p id="live-said" aria-live="polite"></p>'
        + plot.format("one-chip", "Transients of one chip by cycle", 300, "")
        + _filled("This chip over time, as a table", ("from cycle", "kB of transients"), "live-table")
    )


def _filled(summary: str, headers: Sequence[str], name: str) -> str:
    """A table that the page's script fills."""
    return f"<details><summary>{escape(summary)}</summary>{table(headers, (), name)}</details>"


def _provenance(program: Program, verdicts: Sequence[tuple[str, str]]) -> str:
    manifest = program.manifest
    about = [
        ("program sha256", manifest.digest),
        ("inputs sha256", manifest.inputs),
        ("weights", f"{manifest.model.weights} {manifest.model.weights_digest}"),
        ("parameters sha256", manifest.model.parameters),
        ("schema", manifest.schema),
        *((f"version of {name}", version) for name, version in manifest.versions.items()),
        *verdicts,
    ]
    numbers = manifest.chip.numbers()
    sources = [
        (one.field, numbers.get(one.field, ""), kind_of(one), one.confidence, one.source)
        for one in manifest.sources
    ]
    return (
        table(("what", "value"), about, "provenance-table")
        + "<h3>Numbers of the machine</h3>"
        + table(("number", "value", "kind", "confidence", "source"), sources, "numbers")
        + "<h3>Kinds of numbers</h3>"
        + table(("kind", "what is of this kind"), KINDS)
    )
