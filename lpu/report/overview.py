"""A program on one screen of text: a map of the rack by stage, and its blocks over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_letters, digits
from typing import Any

import numpy as np

from compiler.program.program import Call, Program
from lpu.inputs.document import FileError
from lpu.report.occupancy import kind_of
from lpu.report.words import EXACT, kind, label_of
from lpu.screen import OnScreen, plain

WIDE = 100  # characters of a line
BINS = 64  # of the step, in the picture of its blocks
LINES = 40  # groups of chips that it shows
IDLE, FREE, MORE, LOST = ".", " ", "+", "#"
MARKS = digits + ascii_letters


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Overview(OnScreen):
    """Stages of chips, and calls in order. stage: by chip, -1 without work. lines: chips of a call by name.

    calls: (name, kind, line, first cycle, cycles). trays: the chips of each group of the innermost level.
    """

    model: str
    rack: str
    chip: str
    context: int
    cycles: int
    stage: tuple[int, ...]
    trays: tuple[tuple[int, ...], ...]
    level: str
    calls: tuple[tuple[str, str, str, int, int], ...]
    lost: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()

    def map(self) -> str:
        """The chips of every tray, each with the mark of its stage; `.` has no work."""
        marks = [MARKS[at] if 0 <= at < len(MARKS) else IDLE if at < 0 else MORE for at in self.stage]
        for chip in self.lost:
            marks[chip] = LOST
        name = plain(self.level, 12)
        cells = [
            f"{name} {i:<3}[{''.join(marks[chip] for chip in tray)}]" for i, tray in enumerate(self.trays)
        ]
        width = max(map(len, cells), default=1) + 2
        each = max(WIDE // width, 1)
        lines = [
            "".join(f"{cell:<{width}}" for cell in cells[i : i + each]).rstrip()
            for i in range(0, len(cells), each)
        ]
        last = max(self.stage, default=-1)
        return "\n".join(
            [
                *lines,
                f"0 to {MARKS[min(max(last, 0), 61)]}: stage of the pipeline; {IDLE}: no work"
                + (f"; {LOST}: lost" if self.lost else ""),
                *([f"broken: {' '.join(self.faults)}"] if self.faults else []),
            ]
        )

    def gantt(self) -> str:
        """Groups of chips against time: the mark of the block that takes most of each bin."""
        kinds = list(dict.fromkeys(call[1] for call in self.calls))
        marks = _marks(kinds)
        lines = list(dict.fromkeys(call[2] for call in self.calls))
        name = max(map(len, lines), default=0)
        out = [f"{line:<{name}} |{self._line(line, marks)}|" for line in lines[:LINES]]
        if len(lines) > LINES:
            out.append(f"... and {len(lines) - LINES} more groups of chips")
        words = ", ".join(f"{marks[one]} {plain(one, 20)}" for one in kinds)
        return "\n".join([*out, f"{words}; a column is {self.cycles / BINS:,.0f} cycles"])

    def _line(self, line: str, marks: dict[str, str]) -> str:
        took = np.zeros((len(marks), BINS))
        order = list(marks)
        size = max(self.cycles, 1) / BINS
        for _, of, where, begin, cycles in self.calls:
            if where != line:
                continue
            for bin_ in range(int(begin / size), min(int((begin + cycles) / size) + 1, BINS)):
                inside = min(begin + cycles, (bin_ + 1) * size) - max(begin, bin_ * size)
                took[order.index(of), bin_] += max(inside, 0)
        best = took.argmax(axis=0)
        return "".join(marks[order[int(best[i])]] if took[:, i].max() > 0 else FREE for i in range(BINS))

    @property
    def title(self) -> str:
        """What it is a picture of, on one line."""
        return (
            f"{plain(self.model, 60)} on {plain(self.rack, 40)}, context {self.context}: "
            f"{self.cycles:,} cycles ({kind(self.chip)})"
        )

    def __str__(self) -> str:
        return f"{self.title}\n{self.map()}\n\n{self.gantt()}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "lpu-overview/1",
            "kind": EXACT,
            "label": label_of(self.chip),
            "model": self.model,
            "rack": self.rack,
            "context": self.context,
            "cycles": self.cycles,
            "stage_of_chip": list(self.stage),
            "calls": [
                {"name": name, "kind": kind, "chips": line, "first_cycle": begin, "cycles": cycles}
                for name, kind, line, begin, cycles in self.calls
            ],
        } | ({"lost_chips": list(self.lost), "faults": list(self.faults)} if self.faults else {})


def overview(program: Program, context: int | None = None) -> Overview:
    """The program on one screen, at a context bucket; the first if not given. Raises FileError."""
    manifest = program.manifest
    bucket = manifest.contexts[0] if context is None else context
    if bucket not in manifest.contexts:
        known = ", ".join(map(str, manifest.contexts))
        raise FileError(f"show: --context {bucket}: the program has {known}.")
    stage = [-1] * manifest.chips
    count = 0
    calls: list[tuple[str, str, str, int, int]] = []
    for call in program.calls:
        chips = chips_of(program, call, bucket)
        if not chips:
            continue
        fresh = [chip for chip in chips if stage[chip] < 0]
        for chip in fresh:
            stage[chip] = count
        count += bool(fresh)
        cycles = program.blocks[call.block].cycles[bucket]
        calls.append((call.name, kind_of(call.name), named(chips), call.base[bucket], cycles))
    inner = manifest.levels[0] if manifest.levels else None
    return Overview(
        model=manifest.model.name,
        rack=manifest.rack,
        chip=manifest.chip.name,
        context=bucket,
        cycles=manifest.cycles[bucket],
        stage=tuple(stage),
        trays=inner.groups if inner else (tuple(range(manifest.chips)),),
        level=inner.name if inner else "chips",
        calls=tuple(calls),
        lost=manifest.broken.lost if manifest.broken else (),
        faults=manifest.broken.faults if manifest.broken else (),
    )


def chips_of(program: Program, call: Call, context: int) -> list[int]:
    """The chips that compute a call, ascending; none of a call without rows."""
    rows = program.blocks[call.block].columns[context]
    return sorted(call.chips[rank] for rank in np.unique(rows.chip[rows.peer < 0]).tolist())


def named(chips: Sequence[int], few: int = 6) -> str:
    """Chips as a short name: `8-15`, or the first few of them."""
    if len(chips) > 1 and list(chips) == list(range(chips[0], chips[0] + len(chips))):
        return f"{chips[0]}-{chips[-1]}"
    shown = ",".join(map(str, chips[:few]))
    return shown if len(chips) <= few else f"{shown},... ({len(chips)})"


def _marks(kinds: Sequence[str]) -> dict[str, str]:
    """A letter for each kind, its own first one where that is free."""
    out: dict[str, str] = {}
    for one in kinds:
        wanted = [*(letter for letter in plain(one) if letter.isascii() and letter.isalnum()), *MARKS]
        out[one] = next((letter for letter in wanted if letter not in out.values()), MORE)
    return out
