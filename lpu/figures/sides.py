"""Machines side by side in time: what each line does from when to when, and how that is known."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lpu.figures.drawing import LEGEND, Drawing, axis, colour, label


class Span(NamedTuple):
    """Something on a line from one microsecond to another; kind: how its time is known."""

    line: str
    name: str
    begin: float
    end: float
    kind: str


def sides_figure(name: str, title: str, about: str, spans: Sequence[Span]) -> Drawing:
    """A bar for every span on its line, in the colour of its kind; in the table each line's busy time."""
    lines, kinds = (list(dict.fromkeys(getattr(span, key) for span in spans)) for key in ("line", "kind"))
    last = max((span.end for span in spans), default=0.0)
    data: list[dict[str, Any]] = []
    for i, kind in enumerate(kinds):
        some = [span for span in spans if span.kind == kind]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": label(kind),
                "y": [label(span.line) for span in some],
                "base": [span.begin for span in some],
                "x": [span.end - span.begin for span in some],
                "text": [label(span.name) for span in some],
                "textposition": "none",
                "marker": {"color": colour(i), "line": {"width": 0.5, "color": "#ffffff"}},
                "hovertemplate": "%{text}: %{x:,.3f} us from %{base:,.3f} us<extra>%{y}</extra>",
            }
        )
    busy = {line: sum(span.end - span.begin for span in spans if span.line == line) for line in lines}
    return Drawing(
        name=name,
        title=title,
        about=about,
        data=data,
        layout={
            "barmode": "overlay",
            "bargap": 0.2,
            "xaxis": axis("us", range=[0, last or 1]),
            "yaxis": axis("", autorange="reversed", type="category", categoryarray=[*map(label, lines)]),
            "height": 140 + 36 * max(len(lines), 3),
            "legend": LEGEND,
            "margin": {"l": 140, "r": 10, "t": 40, "b": 40},
        },
        headers=("line", "busy, us", "share"),
        table=tuple((line, f"{us:,.3f}", f"{100 * us / (last or 1):.1f} %") for line, us in busy.items()),
    )
