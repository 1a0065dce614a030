"""Power over the cycles of a step."""

import numpy as np
from jaxtyping import Float64

from lpu.figures.drawing import Drawing, axis, colour

POINTS = 2000


def power_figure(
    name: str, watts: Float64[np.ndarray, " cycles"], about: str, points: int = POINTS
) -> Drawing:
    """The mean power of spans of equally many cycles, and the highest of each; at most this many spans."""
    span = max(-(-len(watts) // points), 1)
    starts = np.arange(0, len(watts), span)
    sizes = np.diff(np.append(starts, len(watts)))
    means, most = np.add.reduceat(watts, starts) / sizes, np.maximum.reduceat(watts, starts)
    drawn = (("mean of the span", means), ("highest cycle of the span", most))
    return Drawing(
        name=name,
        title="Power by cycle",
        about=f"{about} Spans of {span:,} cycles.",
        data=[
            {
                "type": "scatter",
                "mode": "lines",
                "name": text,
                "x": starts.tolist(),
                "y": [round(value, 3) for value in values.tolist()],
                "line": {"color": colour(i), "shape": "hv", "width": 1.5 - 0.5 * i},
                "hovertemplate": "from cycle %{x:,}: %{y:,.0f} W<extra></extra>",
            }
            for i, (text, values) in reversed(list(enumerate(drawn)))
        ],
        layout={
            "xaxis": axis("cycle"),
            "yaxis": axis("W", rangemode="tozero"),
            "height": 420,
            "margin": {"l": 70, "r": 10, "t": 40, "b": 40},
        },
        headers=("W", "mean", "lowest cycle", "highest cycle", "at cycle"),
        table=(
            (
                "all chips",
                f"{watts.mean():,.1f}",
                f"{watts.min():,.1f}",
                f"{watts.max():,.1f}",
                f"{int(np.argmax(watts)):,}",
            ),
        ),
    )
