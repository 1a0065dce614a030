"""What requests of a replay waited for and took: shares within a time, and times by arrival."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lpu.figures.drawing import LEGEND, PALETTE, Drawing, axis, colour, label

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


class Curve(NamedTuple):
    """A distribution: each of `milliseconds`, in rising order, is what a share of the requests needs at most.

    target: what was asked for, in milliseconds, or None; within: the share of the requests that met it.
    """

    name: str
    milliseconds: tuple[float, ...]
    shares: tuple[float, ...]
    target: float | None = None
    within: float = 0.0


def distributions_figure(
    curves: Sequence[Curve], about: str, headers: tuple[str, ...], table: Sequence[Sequence[str]]
) -> Drawing:
    """The share of requests within a time, a line for each span; targets as marks on theirs.

    The axis is logarithmic: what took no time is drawn at its left end.
    """
    data: list[dict[str, Any]] = []
    least = min((value for one in curves for value in one.milliseconds if value > 0), default=1.0)
    for i, one in enumerate(curves):
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label(one.name),
                "x": [round(max(value, least), 6) for value in one.milliseconds],
                "y": [round(100 * share, 4) for share in one.shares],
                "text": [f"{value:,.3f} ms" for value in one.milliseconds],
                "line": {"color": colour(i), "dash": DASHES[i % len(DASHES)], "width": 2, "shape": "hv"},
                "hovertemplate": f"%{{y:.2f}} % of {label(one.name)} within %{{text}}<extra></extra>",
            }
        )
        if one.target is not None:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"target of {label(one.name)}",
                    "x": [one.target],
                    "y": [round(100 * one.within, 4)],
                    "marker": {
                        "symbol": "line-ns-open",
                        "size": 18,
                        "color": colour(i),
                        "line": {"width": 3},
                    },
                    "hovertemplate": "%{y:.2f} % within the target, %{x:,.3f} ms<extra></extra>",
                }
            )
    return Drawing(
        name="distributions",
        title="Share of requests within a time",
        about=about,
        data=data,
        layout={
            "xaxis": axis("ms", type="log"),
            "yaxis": axis("% of the requests", range=[0, 101]),
            "legend": LEGEND,
            "height": 460,
            "margin": {"l": 60, "r": 10, "t": 40, "b": 40},
        },
        headers=headers,
        table=tuple(tuple(row) for row in table),
    )


def arrivals_figure(points: Sequence[tuple[float, float]], about: str) -> Drawing:
    """Milliseconds to the first token of each request, by the second of its arrival."""
    return Drawing(
        name="arrivals",
        title="Time to the first token, by arrival",
        about=about,
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "name": "requests",
                "x": [round(second, 6) for second, _ in points],
                "y": [round(ms, 6) for _, ms in points],
                "marker": {"size": 4, "color": PALETTE[0]},
                "hovertemplate": "arrived at %{x:,.3f} s: %{y:,.3f} ms<extra></extra>",
            }
        ],
        layout={
            "xaxis": axis("arrival, seconds"),
            "yaxis": axis("ms to the first token", rangemode="tozero"),
            "height": 360,
            "margin": {"l": 60, "r": 10, "t": 40, "b": 40},
        },
        headers=("requests drawn", "first arrival, s", "last arrival, s", "most, ms"),
        table=(
            (
                f"{len(points):,}",
                f"{min((s for s, _ in points), default=0.0):,.3f}",
                f"{max((s for s, _ in points), default=0.0):,.3f}",
                f"{max((ms for _, ms in points), default=0.0):,.3f}",
            ),
        ),
    )


def busy_figure(parts: Sequence[tuple[str, float, str]]) -> Drawing:
    """How much of the span each part of the machine was busy: (name, share, remark)."""
    return Drawing(
        name="busy",
        title="What was busy",
        about="Share of the time from the first arrival to the last token, over all seeds.",
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "y": [label(name) for name, _, _ in parts],
                "x": [round(100 * share, 4) for _, share, _ in parts],
                "marker": {"color": PALETTE[0]},
                "hovertemplate": "%{y}: %{x:.2f} %<extra></extra>",
            }
        ],
        layout={
            "xaxis": axis("% of the time", rangemode="tozero"),
            "yaxis": axis("", autorange="reversed"),
            "height": 120 + 34 * max(len(parts), 2),
            "margin": {"l": 10, "r": 10, "t": 40, "b": 40},
        },
        headers=("part", "busy", "of what"),
        table=tuple((name, f"{100 * share:.2f} %", remark) for name, share, remark in parts),
    )
