"""Figures of several programs: points of a comparison, bands of a sweep, causes of a difference."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lpu.figures.drawing import LEGEND, MARKERS, PALETTE, Drawing, axis, label


class Spot(NamedTuple):
    """A point: where it is, and what is said of it."""

    x: float
    y: float
    said: str


def style(index: int) -> tuple[str, str]:
    """Colour and marker of the n-th of many series: each pair is used once before one comes again."""
    return PALETTE[index % len(PALETTE)], MARKERS[(index // len(PALETTE) + index) % len(MARKERS)]


def points_figure(
    title: str, series: Mapping[str, Sequence[Spot]], front: Sequence[Spot], x: str, y: str
) -> Drawing:
    """Points by series, a colour and a marker each, larger where several coincide; the front as a line."""
    seen: dict[tuple[float, float], int] = {}
    data: list[dict[str, Any]] = []
    for index, (name, spots) in enumerate(series.items()):
        tint, mark = style(index)
        sizes: list[int] = []
        for spot in spots:
            seen[spot.x, spot.y] = seen.get((spot.x, spot.y), 0) + 1
            sizes.append(7 + 5 * seen[spot.x, spot.y])
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{label(name)}{f' ({len(spots)})' if len(spots) > 1 else ''}",
                "x": [spot.x for spot in spots],
                "y": [spot.y for spot in spots],
                "text": [label(spot.said) for spot in spots],
                "hoverinfo": "text+x+y",
                "marker": {
                    "symbol": f"{mark}-open" if mark not in ("cross", "x") else mark,
                    "size": sizes,
                    "color": tint,
                    "line": {"width": 2, "color": tint},
                },
            }
        )
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "front",
            "x": [spot.x for spot in front],
            "y": [spot.y for spot in front],
            "line": {"shape": "hv", "color": "#777777", "width": 1},
            "hoverinfo": "skip",
        }
    )
    return Drawing(
        name="points",
        title=title,
        about="A point per program; rings around one another are points at one place.",
        data=data,
        layout={"xaxis": axis(x), "yaxis": axis(y), "hovermode": "closest", "height": 520, "legend": LEGEND},
        headers=("series", x, y, "what"),
        table=tuple((n, f"{s.x:.2f}", f"{s.y:.2f}", s.said) for n, some in series.items() for s in some),
    )


def bands_figure(title: str, bands: Sequence[tuple[str, float, float, float]], unit: str) -> Drawing:
    """What a figure is at least and at most while one number varies: (name, least, usual, most)."""
    order = sorted(bands, key=lambda one: one[3] - one[1])
    return Drawing(
        name="bands",
        title=title,
        about="From the least to the largest value while one number varies; the line is the usual one.",
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "y": [label(name) for name, *_ in order],
                "base": [least for _, least, _, _ in order],
                "x": [most - least for _, least, _, most in order],
                "marker": {"color": PALETTE[0]},
                "hoverinfo": "text",
                "text": [f"{least:.2f} to {most:.2f} {unit}" for _, least, _, most in order],
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "usual",
                "x": [usual for _, _, usual, _ in order],
                "y": [label(name) for name, *_ in order],
                "marker": {"symbol": "line-ns-open", "size": 18, "color": PALETTE[3], "line": {"width": 3}},
            },
        ],
        layout={"xaxis": axis(unit), "yaxis": axis(""), "showlegend": False, "height": 140 + 40 * len(order)},
        headers=("number", "least", "usual", "most"),
        table=tuple((n, f"{a:.2f}", f"{b:.2f}", f"{c:.2f}") for n, a, b, c in reversed(order)),
    )


def waterfall_figure(
    title: str, steps: Sequence[tuple[str, int]], start: int, unit: tuple[str, int] = ("cycles", 1)
) -> Drawing:
    """From what one thing takes to what another does, a bar for each cause. unit: its name, and how many."""
    name, per = unit
    names = ["a", *(label(name) for name, _ in steps), "b"]
    end = start + sum(cycles for _, cycles in steps)
    return Drawing(
        name="causes",
        title=title,
        about=f"{name[0].upper()}{name[1:]} of a, what each cause adds or takes away, and {name} of b.",
        data=[
            {
                "type": "waterfall",
                "x": names,
                "measure": ["absolute", *["relative"] * len(steps), "total"],
                "y": [count / per if per > 1 else count for count in (start, *(n for _, n in steps), end)],
                "increasing": {"marker": {"color": PALETTE[3]}},
                "decreasing": {"marker": {"color": PALETTE[2]}},
                "totals": {"marker": {"color": PALETTE[0]}},
            }
        ],
        layout={"xaxis": axis(""), "yaxis": axis(name), "height": 460},
        headers=("cause", name),
        table=tuple((cause, f"{count / per:+,.15g}") for cause, count in steps),
    )


def changes_figure(name: str, title: str, rows: Sequence[tuple[str, int, int]]) -> Drawing:
    """What each part of a step takes in both programs."""
    changed = [row for row in rows if row[1] or row[2]]
    return Drawing(
        name=name,
        title=title,
        about="Cycles of both programs; the rows add up to the step of each.",
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "name": side,
                "y": [label(row[0]) for row in changed],
                "x": [row[place] for row in changed],
                "marker": {"color": tint, "pattern": {"shape": shape}},
            }
            for side, place, tint, shape in (("a", 1, PALETTE[0], ""), ("b", 2, PALETTE[1], "/"))
        ],
        layout={
            "barmode": "group",
            "xaxis": axis("cycles"),
            "yaxis": axis("", autorange="reversed"),
            "legend": LEGEND,
            "height": 140 + 44 * max(len(changed), 2),
        },
        headers=("part", "a", "b", "change"),
        table=tuple((n, f"{x:,}", f"{y:,}", f"{y - x:+,}") for n, x, y in changed),
    )


def ratios_figure(
    title: str,
    pairs: Sequence[tuple[str, float]],
    headers: tuple[str, ...],
    table: tuple[tuple[str, ...], ...],
) -> Drawing:
    """How many times larger each number of one thing is than that of another, on a logarithmic axis."""
    return Drawing(
        name="ratios",
        title=title,
        about="Numbers that differ, b over a; what is no number is in the table alone.",
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "x": [round(ratio, 6) for _, ratio in pairs],
                "y": [label(name) for name, _ in pairs],
                "marker": {"size": 11, "color": PALETTE[0]},
                "hovertemplate": "%{y}: %{x} x<extra></extra>",
            }
        ],
        layout={
            "xaxis": axis("b / a", type="log"),
            "yaxis": axis("", autorange="reversed"),
            "height": 140 + 26 * max(len(pairs), 2),
            "margin": {"l": 10, "r": 10, "t": 40, "b": 40},
        },
        headers=headers,
        table=table,
    )
