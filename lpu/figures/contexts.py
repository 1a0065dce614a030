"""The figure of a study of contexts: how many users a rack holds as contexts grow."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lpu.figures.drawing import LEGEND, Drawing, axis, label
from lpu.figures.results import style


class UsersHeld(NamedTuple):
    """Users of a rack at a context; kind: exact, or derived from bytes alone."""

    context: int
    users: float
    kind: str


def contexts_figure(title: str, series: Mapping[str, Sequence[UsersHeld]], exact: str) -> Drawing:
    """A line for each model, both axes logarithmic; marks are filled where users are of the kind `exact`."""
    data: list[dict[str, Any]] = []
    for index, (name, held) in enumerate(series.items()):
        tint, mark = style(index)
        marks = [mark if one.kind == exact else f"{mark}-open" for one in held]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": label(name),
                "x": [one.context for one in held],
                "y": [one.users for one in held],
                "text": [label(f"{name}, {one.kind}") for one in held],
                "hoverinfo": "text+x+y",
                "line": {"color": tint},
                "marker": {"symbol": marks, "size": 9, "color": tint},
            }
        )
    return Drawing(
        name="contexts",
        title=title,
        about="Users that a rack holds beside the weights; filled marks are of programs, hollow ones bounds.",
        data=data,
        layout={
            "xaxis": axis("tokens of a context", type="log"),
            "yaxis": axis("users a rack", type="log"),
            "height": 520,
            "legend": LEGEND,
        },
        headers=("model", "context", "users a rack", "kind"),
        table=tuple(
            (name, f"{one.context:,}", f"{one.users:,.4g}", one.kind)
            for name, held in series.items()
            for one in held
        ),
    )
