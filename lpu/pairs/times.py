"""The times of two reports held against each other, each the sum of its parts, as the difference is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lpu.diff.causes import Cause
from lpu.diff.diff import Row
from lpu.figures.drawing import Drawing
from lpu.figures.results import waterfall_figure
from lpu.figures.shown import Shown
from lpu.gpu.units import PS_PER_US
from lpu.report.words import caution_of
from lpu.screen import plain

SHOWN = 4  # rows and parts of a cause that the text shows


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedReport:
    """A report as a difference reads it. times: by name, the picoseconds of its parts by name.

    said: what it says of itself, in names and values. asked: what it was asked for, by name.
    """

    name: str
    kind: str
    label: str | None
    said: tuple[tuple[str, str], ...]
    times: dict[str, dict[str, int]]
    asked: dict[str, Any] = field(default_factory=dict[str, Any])

    def of(self, time: str) -> int:
        """A whole time; 0 of one that the report has not."""
        return sum(self.times.get(time, {}).values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeChange:
    """One time of both reports. causes: add up to the change with `unexplained`; in picoseconds."""

    name: str
    a: int
    b: int
    rows: tuple[Row, ...]
    causes: tuple[Cause, ...]
    unexplained: int

    @property
    def more(self) -> int:
        """What b takes more."""
        return self.b - self.a


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TimesDifference(Shown):
    """Two reports of one kind. changes: of every time. changed: what they were asked for and is not the same.

    how: how the causes were found.
    """

    a: TimedReport
    b: TimedReport
    how: str
    changes: tuple[TimeChange, ...]
    changed: tuple[tuple[str, str], ...]

    @property
    def main(self) -> TimeChange:
        """The first time that is not the same, or the first of all."""
        return next((one for one in self.changes if one.more), self.changes[0])

    @property
    def first(self) -> str:
        """The first cause in words."""
        if not self.main.more:
            return "the same times"
        return self.main.causes[0].name if self.main.causes else "not explained"

    @property
    def unexplained(self) -> int:
        """Picoseconds of the main time that no cause has."""
        return self.main.unexplained

    def __str__(self) -> str:
        lines = [
            f"{letter}           {plain(one.name)}: {'; '.join(f'{k} {plain(v)}' for k, v in one.said)}"
            for letter, one in (("a", self.a), ("b", self.b))
        ]
        lines.append(f"comparable  times of {self.a.kind}" + (f" ({self.a.label})" if self.a.label else ""))
        if said := caution_of(self.a.label):
            lines.append(f"caution     {said}")
        word = "slower" if self.main.more > 0 else "faster" if self.main.more else "equal"
        lines.append(f"why {word}: {plain(self.first)} ({self.how})")
        if self.changed:
            lines.append(f"differs     {'; '.join(f'{plain(k)}: {plain(v)}' for k, v in self.changed)}")
        for one in self.changes:
            lines += _lines(one)
        return "\n".join(lines)

    def drawing(self) -> Drawing:
        """From the main time of a to that of b, cause by cause."""
        main = self.main
        steps = [(cause.name, cause.cycles) for cause in main.causes]
        steps += [("not explained", main.unexplained)] if main.unexplained else []
        return waterfall_figure(f"{main.name}: {self.first}", steps, main.a, ("ns", 1000))

    def records(self) -> list[dict[str, Any]]:
        """A line for each part of each time."""
        return [
            {"time": one.name, "part": row.name, "a_us": row.a / PS_PER_US, "b_us": row.b / PS_PER_US}
            for one in self.changes
            for row in one.rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times in picoseconds."""
        return {
            "schema": "lpu-diff-times/1",
            "label": self.a.label,
            "kind": self.a.kind,
            "a": {"name": self.a.name, **dict(self.a.said)},
            "b": {"name": self.b.name, **dict(self.b.said)},
            "how": self.how,
            "changed": [{"name": name, "what": what} for name, what in self.changed],
            "times": [
                {
                    "name": one.name,
                    "a_picoseconds": one.a,
                    "b_picoseconds": one.b,
                    "causes": [_cause(cause) for cause in one.causes],
                    "unexplained_picoseconds": one.unexplained,
                    "parts": [asdict_row(row) for row in one.rows],
                }
                for one in self.changes
            ],
        }


def asdict_row(row: Row) -> dict[str, Any]:
    """A part of a time as JSON."""
    return {"name": row.name, "a_picoseconds": row.a, "b_picoseconds": row.b}


def _cause(cause: Cause) -> dict[str, Any]:
    body = asdict(cause)
    parts: Sequence[Any] = body.pop("parts")
    inside = [{"name": one["name"], "picoseconds": one["cycles"]} for one in parts]
    return {"name": body["name"], "what": body["what"], "picoseconds": body["cycles"], "parts": inside}


def _lines(one: TimeChange) -> list[str]:
    """A time, its causes and its parts in text."""
    over = 100 * one.more / one.a if one.a else 0.0
    lines = [f"{one.name}: {us(one.a)} -> {us(one.b)} us, {us(one.more, '+')} us = {over:+.1f} %"]
    if not one.more:
        return lines
    for cause in one.causes:
        lines.append(f"  {us(cause.cycles, '+'):>14}  {plain(cause.name)}: {plain(cause.what)}")
        lines += [f"  {us(part.cycles, '+'):>16}  of it {plain(part.name)}" for part in cause.parts[:SHOWN]]
    lines.append(f"  {us(one.unexplained, '+'):>14}  not explained")
    moved = sorted((row for row in one.rows if row.more), key=lambda row: -abs(row.more))
    lines.append(
        "  by part   " + ", ".join(f"{plain(row.name)} {us(row.more, '+')}" for row in moved[:SHOWN])
    )
    return lines


def us(picoseconds: int, sign: str = "") -> str:
    """Microseconds in text."""
    return f"{picoseconds / PS_PER_US:{sign},.3f}"
