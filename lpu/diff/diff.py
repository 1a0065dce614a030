"""The difference of two steps: tables that each add up to it, and its causes, the largest first."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from compiler.analyse.chain import WAITS
from lpu.compiled import ProgramLike, programs_of
from lpu.diff.again import CannotRepeatError
from lpu.diff.causes import Cause, differing, largest_first, named, structural
from lpu.diff.legs import legs_between
from lpu.diff.side import COMPUTE, REMAPPED, Side, of_program, of_report, to_json
from lpu.figures.drawing import Drawing
from lpu.figures.results import waterfall_figure
from lpu.figures.shown import Shown
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.report.words import EXACT, kind, label_of
from lpu.screen import plain

SHOWN = 4  # rows of a table that the text shows, and parts of a cause
UNITS = {
    "MXM": "MXM",
    "MXM fill": "MXM",
    "drains": "drains",
    "VXM": "VXM",
    "VXM latency": "VXM",
    "link slots": "links",
    "link hops": "links",
    "host lanes": "host lanes",
}


class NothingComparableError(FileError):
    """Two programs of which no cycles can be held against each other."""


class Row(NamedTuple):
    """A line of a table: cycles of both steps."""

    name: str
    a: int
    b: int

    @property
    def more(self) -> int:
        """What b takes more."""
        return self.b - self.a


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Difference(Shown):
    """Two steps held against each other; the rows of each table add up to the cycles of both.

    comparable: what is. how: how the causes were found. unexplained: cycles that no cause has. changed: what
    both were compiled from and is not the same, in names and values.
    """

    a: Side
    b: Side
    comparable: str
    how: str
    causes: tuple[Cause, ...]
    unexplained: int
    tables: dict[str, tuple[Row, ...]]
    changed: tuple[tuple[str, str], ...] = ()

    @property
    def cycles(self) -> int:
        """What b takes more; negative if it is shorter."""
        return self.b.cycles - self.a.cycles

    @property
    def first(self) -> str:
        """The first cause in words."""
        if not self.cycles:
            return "the same cycles"
        return self.causes[0].name if self.causes else "not explained"

    def __str__(self) -> str:
        a, b = self.a, self.b
        over = self.cycles / max(a.cycles, 1)
        lines = [
            *(
                f"{letter}           {plain(one.name)}: {plain(one.model)}, context {one.context}, "
                f"{one.cycles:,} cycles = {one.microseconds:.2f} us, digest {one.digest[:16]}"
                for letter, one in (("a", a), ("b", b))
            ),
            f"difference  {self.cycles:+,} cycles = {100 * over:+.1f} %, "
            f"{b.microseconds - a.microseconds:+.2f} us ({kind(b.chip)})",
            f"comparable  {self.comparable}",
            f"why {self._word()}: {plain(self.first)} ({self.how})",
        ]
        named = {cause.what for cause in self.causes}
        if more := [f"{plain(name)}: {plain(what)}" for name, what in self.changed if what not in named]:
            lines.insert(-1, f"differs     {'; '.join(more)}")
        for cause in self.causes:
            lines.append(f"  {cause.cycles:>+12,}  {plain(cause.name)}: {plain(cause.what)}")
            shown = cause.parts[:SHOWN]
            lines += [f"  {part.cycles:>+14,}  of it {plain(part.name)}: {part.what}" for part in shown]
        lines.append(f"  {self.unexplained:>+12,}  not explained")
        for name, rows in self.tables.items():
            changed = sorted((row for row in rows if row.more), key=lambda row: -abs(row.more))
            text = ", ".join(f"{plain(row.name)} {row.more:+,}" for row in changed[:SHOWN])
            rest = sum(row.more for row in changed[SHOWN:])
            text += f", the rest {rest:+,}" if len(changed) > SHOWN else ""
            lines.append(f"by {name:<9}{text or 'no change'}")
        return "\n".join(lines)

    def _word(self) -> str:
        """Slower or faster in time; of two clocks of which one has more cycles in less time, that."""
        time = self.b.microseconds - self.a.microseconds
        if not self.cycles:
            return "equal"
        if self.cycles * time < 0:
            return f"{'more' if self.cycles > 0 else 'fewer'} cycles"
        return "slower" if self.cycles > 0 else "faster"

    def drawing(self) -> Drawing:
        """From the cycles of a to those of b, cause by cause."""
        steps = [(cause.name, cause.cycles) for cause in self.causes]
        steps += [("not explained", self.unexplained)] if self.unexplained else []
        return waterfall_figure(f"{self.cycles:+,} cycles: {self.first}", steps, self.a.cycles)

    def records(self) -> list[dict[str, Any]]:
        """A line for each row of each table."""
        return [
            {"by": by, "name": row.name, "a_cycles": row.a, "b_cycles": row.b, "more_cycles": row.more}
            for by, rows in self.tables.items()
            for row in rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; keys carry their units."""
        return {
            "schema": "lpu-diff/1",
            "kind": EXACT,
            "label": label_of(self.b.chip),
            "a": to_json(self.a),
            "b": to_json(self.b),
            "difference_cycles": self.cycles,
            "difference_microseconds": self.b.microseconds - self.a.microseconds,
            "comparable": self.comparable,
            "how": self.how,
            "changed": [{"name": name, "what": what} for name, what in self.changed],
            "causes": [asdict(cause) for cause in self.causes],
            "unexplained_cycles": self.unexplained,
            "tables": {
                name: [{"name": row.name, "a_cycles": row.a, "b_cycles": row.b} for row in rows]
                for name, rows in self.tables.items()
            },
        }


def diff(
    a: ProgramLike,
    b: ProgramLike,
    *,
    context: int | None = None,
    again: bool = True,
    progress: Progress = quiet,
) -> Difference:
    """Hold two programs, or reports of `lpu report --json`, against each other.

    context: a bucket of both; if not given the longest of each. again: compile with one thing changed at a
    time to tell causes apart, where that is possible. Raises FileError, NothingComparableError if no cycles
    of the two can be compared.
    """
    ours, theirs = _side(a, "a", context), _side(b, "b", context)
    comparable = _comparable(ours, theirs)
    changed = differing(ours, theirs)
    causes, rest, how = _causes(ours, theirs, changed, again, progress)
    return Difference(
        a=ours,
        b=theirs,
        comparable=comparable,
        how=how,
        causes=causes,
        unexplained=rest,
        tables=_tables(ours, theirs),
        changed=tuple(named(fact, values) for fact, values in changed.items()),
    )


def _side(source: ProgramLike, letter: str, context: int | None) -> Side:
    name = str(source) if isinstance(source, (str, Path)) else letter
    if isinstance(source, (str, Path)) and Path(source).is_file():
        return of_report(name, _json(Path(source)))
    loaded, _ = programs_of(source)
    known = loaded.manifest.contexts
    if context is not None and context not in known:
        raise FileError(f"diff: --context {context}: {name} has {', '.join(map(str, known))}.")
    return of_program(name, loaded, max(known) if context is None else context)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise FileError(f"diff: {path}: is neither a program folder nor JSON of lpu report --json.") from None


def _comparable(a: Side, b: Side) -> str:
    """What can be held against each other. Raises NothingComparableError."""
    if a.kind != b.kind and not (a.kind in COMPUTE and b.kind in COMPUTE):
        raise NothingComparableError(
            f"diff: {a.name} is of kind {a.kind}, {b.name} of kind {b.kind}: their cycles measure different "
            "things. Compare two programs of one kind."
        )
    shared = [one for one in a.kinds() if one in b.kinds()]
    if not shared:
        raise NothingComparableError(
            f"diff: {a.name} has blocks {', '.join(a.kinds()[:6])}, {b.name} has {', '.join(b.kinds()[:6])}: "
            "none of one kind. Compare models of the same blocks."
        )
    models = "" if a.model == b.model else f" of the models {plain(a.model)} and {plain(b.model)}"
    alone = [one for one in (*a.kinds(), *b.kinds()) if one not in shared]
    left = f"; {', '.join(map(plain, alone))} only on one side" if alone else ""
    return f"cycles of {'a step' if a.kind in COMPUTE else a.kind}{models}: {', '.join(shared)}{left}"


Found = tuple[tuple[Cause, ...], int, str]


def _causes(a: Side, b: Side, changed: dict[str, Any], again: bool, progress: Progress) -> Found:
    """Causes, the cycles that none of them has, and how they were found."""
    total = b.cycles - a.cycles
    if not changed:
        found = structural(a, b)
        return found, total - sum(one.cycles for one in found), "compiled from the same: by their chains"
    why = "not compiled again"
    if again and a.program and b.program:
        try:
            legs, rest = legs_between(a, b, a.program, b.program, list(changed), progress)
            found = largest_first(
                _cause(leg, changed, one.cycles, other.cycles, structural(one, other))
                for leg, one, other in legs
            )
            return found, rest, f"compiled again, {len(legs)} thing{'s' * (len(legs) > 1)} changed in turn"
        except CannotRepeatError as error:
            why = f"not compiled again: {plain(str(error))}"
    found = structural(a, b)
    if len(set(changed) - {REMAPPED}) <= 1 and "model" not in changed:
        cause = _cause(tuple(changed), changed, a.cycles, b.cycles, found)
        return (cause,), 0, f"nothing else differs; {why}"
    return found, total - sum(one.cycles for one in found), f"by their chains; {why}"


def _cause(
    facts: Sequence[str], changed: dict[str, Any], before: int, after: int, parts: tuple[Cause, ...]
) -> Cause:
    names = [named(fact, changed[fact]) for fact in facts]
    return Cause(
        name=" and ".join(name for name, _ in names),
        what="; ".join(what for _, what in names),
        cycles=after - before,
        parts=parts,
    )


def _tables(a: Side, b: Side) -> dict[str, tuple[Row, ...]]:
    """By block, unit, link, exchange and wait; the rows of each add up to the cycles of both steps."""

    def by(name: Callable[[Side], Iterable[tuple[str, int]]], rest: str) -> tuple[Row, ...]:
        sums: list[dict[str, int]] = []
        for side in (a, b):
            found: dict[str, int] = {}
            for key, cycles in name(side):
                found[key] = found.get(key, 0) + cycles
            left = side.cycles - sum(found.values())
            sums.append(found | ({rest: found.get(rest, 0) + left} if left else {}))
        return tuple(
            Row(key, sums[0].get(key, 0), sums[1].get(key, 0)) for key in dict.fromkeys((*sums[0], *sums[1]))
        )

    return {
        "block": by(_by_block, "not in blocks"),
        "unit": by(_by_unit, "not on the chain"),
        "link": by(_by_link, "units of chips, and waiting"),
        "exchange": by(_by_exchange, "not in exchanges"),
        "wait": by(_by_wait, "not waiting"),
    }


def _by_block(side: Side) -> Iterable[tuple[str, int]]:
    return ((block.kind, block.calls * block.cycles) for block in side.blocks)


def _by_unit(side: Side) -> Iterable[tuple[str, int]]:
    every = [(p.part, b.calls * p.cycles) for b in side.blocks for p in b.parts]
    return ((UNITS.get(part, "waiting"), cycles) for part, cycles in every)


def _by_link(side: Side) -> Iterable[tuple[str, int]]:
    for block in side.blocks:
        for part in block.parts:
            if UNITS.get(part.part) == "links":
                yield f"{part.level or 'all'} {part.part.removeprefix('link ')}", block.calls * part.cycles


def _by_exchange(side: Side) -> Iterable[tuple[str, int]]:
    for block in side.blocks:
        for one in block.exchanges:
            yield f"{block.kind}: {one.after} to {one.before}", block.calls * one.cycles


def _by_wait(side: Side) -> Iterable[tuple[str, int]]:
    waits = set(WAITS.values())
    return ((p.part, b.calls * p.cycles) for b in side.blocks for p in b.parts if p.part in waits)
