"""The waves of a throughput program: steps of several users that follow one another through the groups."""

from typing import Any

from compiler.program.program import Program
from lpu.figures.drawing import LEGEND, Drawing, axis, colour
from lpu.figures.schedule import line_of

MOST = 8  # waves that are drawn
THICK, HIGH = 5, 1200  # pixels of a wave on its line, and of all lines if there are many


def waves_figure(program: Program, context: int) -> Drawing | None:
    """When each group of chips works for which wave; None for a program of one step at a time."""
    waves = program.manifest.waves
    if waves is None:
        return None
    entry = waves.contexts[context]
    calls = [call for call in program.calls if len(program.blocks[call.block].columns[context])]
    cycles = program.manifest.cycles[context]
    shown = min(MOST, -(-cycles // entry.interval) + 1)
    lines = list(dict.fromkeys(line_of(program, call, context) for call in calls))
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": f"wave {wave}, user {wave % entry.turn % waves.users}",
            "y": [line_of(program, call, context) for call in calls],
            "base": [call.base[context] + wave * entry.interval for call in calls],
            "x": [program.blocks[call.block].cycles[context] for call in calls],
            "marker": {"color": colour(wave), "line": {"width": 0}},
            "hovertemplate": f"wave {wave}, chips %{{y}}: %{{x:,}} cycles from %{{base:,}}<extra></extra>",
        }
        for wave in range(shown)
    ]
    return Drawing(
        name="waves",
        title="The waves: steps that follow one another",
        about=(
            f"A new step enters every {entry.interval:,} cycles; no interval is below {entry.bound:,} "
            f"({entry.bound_of}). A user may step again after {entry.turn:,} intervals; KV of "
            f"{waves.users:,} users fits. The first {shown} waves. Exact for the stated machine."
        ),
        data=data,
        layout={
            "barmode": "group",
            "bargap": 0.15,
            "bargroupgap": 0.0,
            "xaxis": axis("cycle"),
            "yaxis": axis("chips", autorange="reversed", type="category", categoryarray=lines),
            "height": 140 + max(min(THICK * shown, HIGH // len(lines)), 18) * max(len(lines), 4),
            "legend": LEGEND,
            "margin": {"l": 80, "r": 10, "t": 40, "b": 40},
        },
        headers=("interval", "bound", "of", "turn", "users"),
        table=(
            (
                f"{entry.interval:,}",
                f"{entry.bound:,}",
                entry.bound_of,
                f"{entry.turn:,}",
                f"{waves.users:,}",
            ),
        ),
    )
