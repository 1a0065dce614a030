"""Two racks held against each other: every number that is not the same, and how it is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from fabric.chip import WORD_BYTES
from fabric.rack import Rack
from lpu.figures.drawing import Drawing
from lpu.figures.results import ratios_figure
from lpu.figures.shown import Shown
from lpu.report.words import EXACT, caution, kind_of, label_of
from lpu.screen import plain

HEADERS = ("number", "a", "b", "b / a", "known as")


class RackNumber(NamedTuple):
    """A number of both racks; known: as what, of b."""

    name: str
    a: Any
    b: Any
    known: str

    @property
    def ratio(self) -> float | None:
        """The one of b over that of a, of numbers."""
        both = isinstance(self.a, int | float) and isinstance(self.b, int | float)
        return self.b / self.a if both and self.a else None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RackDifference(Shown):
    """Numbers of two racks that differ, and how many are the same."""

    a: Rack
    b: Rack
    numbers: tuple[RackNumber, ...]
    same: int

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The cells of a table under HEADERS."""
        return tuple(
            (one.name, _said(one.a), _said(one.b), "" if one.ratio is None else f"{one.ratio:.4g}", one.known)
            for one in self.numbers
        )

    def __str__(self) -> str:
        names = f"{plain(self.a.name)} and {plain(self.b.name)}"
        lines = [f"racks       {names}: {len(self.numbers)} numbers differ, {self.same} are the same"]
        rows = [HEADERS, *self.rows()]
        widths = [max(len(plain(row[i])) for row in rows) for i in range(len(HEADERS))]
        for row in rows:
            lines.append("  ".join(plain(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
        lines.append("cycles      of a model on both: lpu diff A B --model MODEL")
        said = caution(self.b.chip.name) or caution(self.a.chip.name)
        return "\n".join([*lines, *([f"caution     {said}"] if said else [])])

    def drawing(self) -> Drawing:
        """By how much each number of b is larger or smaller than that of a."""
        pairs = [(one.name, one.ratio) for one in self.numbers if one.ratio]
        return ratios_figure(f"{plain(self.b.name)} over {plain(self.a.name)}", pairs, HEADERS, self.rows())

    def records(self) -> list[dict[str, Any]]:
        """A line for each number that differs."""
        return [
            {"number": n.name, "a": n.a, "b": n.b, "ratio": n.ratio, "kind": n.known} for n in self.numbers
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-diff-racks/1",
            "a": self.a.name,
            "b": self.b.name,
            "label": label_of(self.b.chip.name),
            "numbers": self.records(),
            "same": self.same,
        }


def racks_differ(a: Rack, b: Rack) -> RackDifference:
    """Every number of both racks, by name."""
    ours, theirs = dict(_numbers(a)), dict(_numbers(b))
    known = {one.field: kind_of(one) for rack in (a, b) for one in (*rack.sources, *rack.chip.sources)}
    names = list(dict.fromkeys((*ours, *theirs)))
    pairs = [
        RackNumber(name, ours.get(name), theirs.get(name), known.get(name.removeprefix("chip."), EXACT))
        for name in names
    ]
    differ = tuple(one for one in pairs if one.a != one.b)
    return RackDifference(a=a, b=b, numbers=differ, same=len(pairs) - len(differ))


def _numbers(rack: Rack) -> Iterator[tuple[str, Any]]:
    links = rack.links
    yield "chips", rack.chips
    yield "links", len(links.lanes)
    yield "lanes of all links", int(links.lanes.sum())
    per = WORD_BYTES * rack.chip.clock_hz * links.lanes // links.slot_cycles
    yield "bytes a second over all links", int(per.sum())
    yield "SRAM bytes", rack.chips * rack.chip.sram_bytes
    yield "forward_ns", rack.spec.forward_ns
    for level in rack.spec.levels:
        for name in ("kind", "size", "lanes", "hop_ns", "slot_cycles"):
            if (value := getattr(level, name)) is not None:
                yield f"{level.name}.{name}", value
    yield "chip", rack.chip.name
    for name, value in rack.chip.numbers().items():
        yield f"chip.{name}", value
    yield "faults", " ".join(map(str, rack.damage.faults)) if rack.damage else "none"


def _said(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float) else str(value)
