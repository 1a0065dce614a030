"""What a person sees: results on stdout (text, or one JSON object), everything else on stderr."""

import json
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from lpu.screen import inert

LINE, WORD = 290, 120  # characters of a problem, and of one word of it
PATIENCE_SECONDS = 1.0  # what takes longer shows a progress bar
SILENCE_SECONDS = 20.0  # in a pipe, what takes longer says where it is, then again


@dataclass(slots=True)
class Terminal:
    """Where the verbs write to. json: one object instead of text. debug: errors keep their traceback."""

    json: bool = False
    debug: bool = False

    def result(self, body: dict[str, Any]) -> None:
        """The one JSON object of a verb, in JSON mode only."""
        if self.json:
            print(json.dumps(body))

    def say(self, text: str) -> None:
        """Text of a result; nothing in JSON mode."""
        if not self.json:
            print(inert(text))

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values, one per line."""
        if self.json:
            return
        rows = [(name, inert(value)) for name, value in rows]
        if not sys.stdout.isatty():
            for name, value in rows:
                print(f"{name:<12}{value}")
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for name, value in rows:
            grid.add_row(Text(name, style="bold"), Text(value))
        Console().print(grid)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: rich on a terminal, aligned columns in a pipe."""
        if self.json:
            return
        rows = [[inert(cell) for cell in line] for line in rows]
        if not sys.stdout.isatty():
            widths = [max(len(line[i]) for line in [headers, *rows]) for i in range(len(headers))]
            for line in [headers, *rows]:
                print(
                    "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
                )
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*headers)
        for line in rows:
            table.add_row(*(Text(cell) for cell in line))
        Console().print(table)

    def panel(self, title: str, text: str) -> None:
        """Text under a title: in a frame on a terminal, as it is in a pipe."""
        if self.json:
            return
        if not sys.stdout.isatty():
            print(inert(text) + "\n")
            return
        from rich.console import Console
        from rich.panel import Panel
        from rich.text import Text

        Console().print(Panel(Text(inert(text), no_wrap=True), title=title, expand=False))

    def note(self, text: str) -> None:
        """A line on stderr."""
        print(inert(text), file=sys.stderr)

    def notes(self, lines: Sequence[str]) -> None:
        """Lines on stderr, each marked as a note."""
        for line in lines:
            self.note(f"note: {line}")

    def error(self, text: str) -> None:
        """One line per problem on stderr."""
        for line in text.splitlines() or [""]:
            print(f"error: {shortened(inert(line))}", file=sys.stderr)


def shortened(line: str) -> str:
    """A line of at most LINE characters: a long word, as paths can be, loses its middle, a line its end."""
    half = WORD // 2
    text = " ".join(
        word if len(word) <= WORD else f"{word[:half]}...{word[-half:]}" for word in line.split(" ")
    )
    return text if len(text) <= LINE else f"{text[: LINE - 3]}..."


TERMINAL: ContextVar[Terminal] = ContextVar("terminal")
"""Of the command line that runs now."""


class Bar:
    """Progress on stderr: a bar on a terminal after a second, a line now and then in a pipe."""

    def __init__(self) -> None:
        self._start = self._told = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._terminal = sys.stderr.isatty()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` parts of a stage are done."""
        now = time.monotonic()
        if not self._terminal:
            if now - self._told >= SILENCE_SECONDS:
                self._told = now
                print(
                    f"progress: {stage} {done} of {total}, {now - self._start:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
            return
        if self._bar is None and now - self._start < PATIENCE_SECONDS:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(stage)
            self._bar.start()
        self._bar.update(self._task, description=stage, completed=done, total=total)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress() -> Generator[Bar]:
    """A bar for the time of a block."""
    bar = Bar()
    try:
        yield bar
    finally:
        bar.stop()
