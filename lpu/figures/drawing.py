"""What every figure is: traces and a layout in Plotly's terms, in colours that everybody can tell apart."""

from dataclasses import dataclass
from html import escape
from typing import Any

from lpu.inputs.document import FileError
from lpu.screen import plain

# Okabe and Ito 2008, the black left out: eight colours that differ for every kind of colour vision.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#999999")
MARKERS = (
    "circle",
    "square",
    "diamond",
    "cross",
    "x",
    "triangle-up",
    "triangle-down",
    "pentagon",
    "star",
    "hexagram",
)
SCALE = "Viridis"
LEGEND = {"orientation": "h", "y": 1.0, "yanchor": "bottom"}
NAME = 60  # characters of a name in a figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure. name: unique on a page. about: what is to be seen, and of what kind it is.

    data, layout: as Plotly takes them. headers, table: the same figures for who does not see it.
    """

    name: str
    title: str
    about: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    headers: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


def label(name: str) -> str:
    """A name for Plotly, which reads text as HTML: inert, cut, and escaped."""
    return escape(plain(name, NAME), quote=False)


def colour(index: int) -> str:
    """The colour of the n-th of several things; those past the palette's end begin again."""
    return PALETTE[index % len(PALETTE)]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title that keeps clear of the numbers and of the frame."""
    return {"title": {"text": title, "standoff": 10}, "automargin": True, **more}


def drawn(figure: Drawing) -> Any:
    """The figure as Plotly's own object. Raises FileError if Plotly is not installed."""
    try:
        import plotly.graph_objects as go  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise FileError("plot: needs plotly. pip install 'lpu-emulator[page]'.") from None
    layout = {"title": {"text": label(figure.title)}, **figure.layout}
    return go.Figure(data=figure.data, layout=layout)
