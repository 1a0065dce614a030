"""The HTML of a page: sections with figures and their tables, data and library packed into the file.

Names come from programs that may be anybody's. They are escaped here, and in figures by `label`; no script
but the page's own runs, and nothing is fetched: its content security policy says so to the browser.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from lpu.figures.drawing import Drawing
from lpu.inputs.document import FileError
from lpu.screen import inert, plain

WORDS = 400  # characters of a cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page. figures: in order. controls: HTML of what steers the first of them, made here."""

    name: str
    title: str
    figures: tuple[Drawing, ...] = ()
    controls: str = ""
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page says. answer: its result in one line. facts: names and values below it.

    rows: of blocks, for the Gantt of rows; report: the JSON of the verb.
    """

    title: str
    answer: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    rows: dict[str, Any] | None = None
    report: dict[str, Any] = field(default_factory=dict[str, Any])


def cell(text: object) -> str:
    """A value as HTML: inert and escaped, cut where it is longer than a cell should be."""
    return escape(plain(str(text), WORDS))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], name: str = "") -> str:
    """A table as HTML, in a frame that scrolls and that a keyboard can reach."""
    head = "".join(f'<th scope="col">{cell(one)}</th>' for one in headers)
    body = "".join("<tr>" + "".join(f"<td>{cell(one)}</td>" for one in row) + "</tr>" for row in rows)
    mark = f' id="{name}"' if name else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table">'
        f"<table{mark}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def html(page: Page) -> bytes:
    """The page as a file. Raises FileError if Plotly is not installed."""
    figures = {one.name: {"data": one.data, "layout": one.layout} for s in page.sections for one in s.figures}
    data = {"figures": figures, "rows": page.rows, "report": page.report}
    script = files("lpu.page").joinpath("page.js").read_text()
    css = files("lpu.page").joinpath("page.css").read_text()
    sha = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{sha}' blob:; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{one.name}">{cell(one.title)}</a></li>' for one in page.sections)
    facts = "".join(f"<dt>{cell(name)}</dt><dd>{cell(value)}</dd>" for name, value in page.facts)
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer"><meta name="generator" content="lpu-emulator">',
        f"<title>{cell(page.title)}</title><style>{css}</style></head><body>",
        '<a class="skip" href="#main">To the report</a>',
        f"<header><h1>{cell(page.title)}</h1>",
        f'<p class="answer" id="answer">{cell(page.answer)}</p>',
        '<button id="theme" type="button">Dark or light</button>',
        f'<nav aria-label="sections"><ul>{links}</ul></nav></header>',
        f'<main id="main"><dl id="facts">{facts}</dl>',
        *map(_section, page.sections),
        "</main>",
        f'<script type="text/plain" id="data">{packed(json.dumps(data, separators=(",", ":")))}</script>',
        f'<script type="text/plain" id="library">{_library()}</script>',
        f"<script>{script}</script></body></html>\n",
    ]
    return "".join(parts).encode()


def packed(text: str) -> str:
    """A text in base64 of gzip, the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


@cache
def _library() -> str:
    try:
        from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise FileError("report: --html needs plotly. pip install 'lpu-emulator[page]'.") from None
    return packed(str(get_plotlyjs()))


def _section(section: Section) -> str:
    figures = [_figure(one, section.controls if i == 0 else "") for i, one in enumerate(section.figures)]
    head = f'<h2 id="{section.name}-title">{cell(section.title)}</h2>'
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}-title">{head}'
        + "".join(figures)
        + section.more
        + "</section>"
    )


def _figure(figure: Drawing, controls: str) -> str:
    height = int(figure.layout.get("height", 400))
    shown = (
        f"<details><summary>{cell(figure.title)}, as a table</summary>"
        f"{table(figure.headers, figure.table)}</details>"
        if figure.table
        else ""
    )
    return (
        f'<p class="about">{cell(figure.about)}</p>{controls}'
        f'<div class="plot" id="plot-{figure.name}" data-figure="{figure.name}" role="group" '
        f'style="height:{height}px" aria-label="{cell(figure.title)}"></div>{shown}'
    )


def rests_on(
    known: Mapping[str, Sequence[str]], more: str = "", first: Sequence[Sequence[str]] = ()
) -> Section:
    """The last section of a page in time: numbers by how they are known, below what else its rows say."""
    rows = [*first, *((kind, ", ".join(names)) for kind, names in known.items())]
    return Section(
        name="provenance",
        title="What it rests on",
        more=table(("known as", "numbers"), rows, "provenance-table") + more,
    )


def options(values: Mapping[str, str]) -> str:
    """Options of a choice, as HTML."""
    return "".join(f'<option value="{cell(key)}">{cell(text)}</option>' for key, text in values.items())


def inert_lines(text: str) -> str:
    """Lines of text as HTML that keeps them."""
    return f"<pre>{escape(inert(text))}</pre>"
