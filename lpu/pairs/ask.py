"""`diff`: two programs, reports, racks or placements held against each other, whichever they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.catalog import rack_names
from fabric.rack import Rack
from lpu.afd.report import AfdReport
from lpu.compiled import ProgramLike
from lpu.diff import diff as programs
from lpu.diff.again import CannotRepeatError
from lpu.diff.causes import Cause, largest_first
from lpu.diff.diff import Difference, NothingComparableError, Row
from lpu.folder import Progress, quiet
from lpu.inputs.document import FileError
from lpu.inputs.files import FILES, read_rack
from lpu.inputs.open import Model, open_model
from lpu.pairs.again import asked_again
from lpu.pairs.facts import differing, fact_of, named
from lpu.pairs.points import is_point, point_program
from lpu.pairs.racks import RackDifference, racks_differ
from lpu.pairs.read import READERS, of_json, report_folder, timed
from lpu.pairs.times import TimeChange, TimedReport, TimesDifference
from lpu.traffic.reports.report import ReplayReport

MANIFEST = "manifest.json"  # of a program folder
Comparable = ProgramLike | Rack | AfdReport | ReplayReport
AnyDifference = Difference | TimesDifference | RackDifference
Opened = ProgramLike | Rack | TimedReport


def diff(
    a: Comparable,
    b: Comparable,
    *,
    context: int | None = None,
    again: bool = True,
    model: Model | None = None,
    progress: Progress = quiet,
) -> AnyDifference:
    """Hold two programs, or reports of `lpu report --json`, against each other; or two of another kind.

    Two reports of `lpu afd` or `lpu replay` (or their JSON), two racks (names, files), two placements of
    a comparison (`RESULTS/STRATEGY:SEED`). context: of both programs, the longest of each if not given.
    again: compile, or ask, with one thing changed at a time to tell causes apart, where that is possible.
    model: compiled for both racks. Raises FileError, NothingComparableError.
    """
    ours, theirs = _opened(a, "a"), _opened(b, "b")
    kinds = _kind(ours), _kind(theirs)
    if kinds[0] != kinds[1]:
        raise NothingComparableError(
            f"diff: {_name(a, 'a')} is {kinds[0]}, {_name(b, 'b')} is {kinds[1]}: nothing of them can be "
            "compared. Give two of one kind."
        )
    if isinstance(ours, Rack) and isinstance(theirs, Rack):
        if model is None:
            return racks_differ(ours, theirs)
        source = open_model(model, context=context).source()
        made = [compile_program(source, rack, CompileOptions(), progress) for rack in (ours, theirs)]
        return programs.diff(*made, again=again, progress=progress)
    if model is not None:
        raise FileError("diff: --model goes with two racks, for which it is compiled. Leave it out.")
    if isinstance(ours, TimedReport) and isinstance(theirs, TimedReport):
        return _times(ours, theirs, again, progress)
    assert not isinstance(ours, Rack | TimedReport)
    assert not isinstance(theirs, Rack | TimedReport)
    return programs.diff(ours, theirs, context=context, again=again, progress=progress)


def _opened(source: Comparable, letter: str) -> Opened:
    """What a name stands for. Raises FileError."""
    name = _name(source, letter)
    if isinstance(source, AfdReport | ReplayReport):
        return timed(source, name)
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if (path / MANIFEST).is_file():  # also of a folder that is called as a rack is
        return source
    if is_point(path):
        return point_program(path)
    found = report_folder(path) or path
    if str(source) in rack_names() or ";" in str(source) or found.suffix in (".yaml", ".yml"):
        return read_rack(source)
    if found.is_file() and found.suffix in FILES:
        body = _json(found)
        if isinstance(body, dict) and body.get("schema") in READERS:
            return of_json(body, name)
        if isinstance(body, dict) and "schema" not in body and "levels" in body:
            return read_rack(source)
    return source


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError):
        return None  # said by who reads it as a report of a program


def _kind(one: Opened) -> str:
    if isinstance(one, TimedReport):
        return f"a report of {one.kind}"
    return "a rack" if isinstance(one, Rack) else "a program"


def _name(source: Comparable, letter: str) -> str:
    return str(source) if isinstance(source, str | Path) else letter


def _times(a: TimedReport, b: TimedReport, again: bool, progress: Progress) -> TimesDifference:
    changed = differing(a.asked, b.asked)
    names = [named(fact, values) for fact, values in changed.items()]
    how, legs, ends = "not asked again", None, (a, b)
    if not changed:
        how = "asked for the same" if a.asked else "nothing is said of what they were asked for"
    elif again:
        try:
            legs, ends = _legs(a, b, list(changed), progress)
            how = f"asked again, {len(legs)} thing{'s' * (len(legs) > 1)} changed in turn"
        except CannotRepeatError as error:
            how = f"not asked again: {error}"
    if legs is None and len(changed) == 1:
        legs, how = [(tuple(changed), a, b)], f"nothing else differs; {how}"
    changes: list[TimeChange] = []
    for time in dict.fromkeys((*a.times, *b.times)):
        rows = _rows(time, a, b)
        if legs is None:
            causes, rest = _by_part(rows), 0
        else:
            causes = largest_first(_cause(time, leg, changed) for leg in legs)
            rest = (ends[0].of(time) - a.of(time)) + (b.of(time) - ends[1].of(time))
        changes.append(
            TimeChange(name=time, a=a.of(time), b=b.of(time), rows=rows, causes=causes, unexplained=rest)
        )
    return TimesDifference(a=a, b=b, how=how, changes=tuple(changes), changed=tuple(names))


Leg = tuple[tuple[str, ...], TimedReport, TimedReport]


def _legs(
    a: TimedReport, b: TimedReport, facts: list[str], progress: Progress
) -> tuple[list[Leg], tuple[TimedReport, TimedReport]]:
    """Reports from a to b, one more fact of b in each, and both ends again. Raises CannotRepeatError."""

    def made(taken: list[str]) -> TimedReport:
        return asked_again(_mixed(a.asked, b.asked, taken), b.kind if "mode" in taken else a.kind)

    progress("diff", 0, len(facts) + 1)
    start = before = made([])
    taken, pending = list[str](), list[str]()
    legs: list[Leg] = []
    for i, fact in enumerate(facts, 1):
        progress(f"diff {fact}", i, len(facts) + 1)
        pending.append(fact)
        try:
            after = made([*taken, *pending])
        except CannotRepeatError:
            if i == len(facts):
                raise
            continue
        legs.append((tuple(pending), before, after))
        taken, pending, before = taken + pending, [], after
    return legs, (start, before)


def _mixed(a: Mapping[str, Any], b: Mapping[str, Any], taken: list[str]) -> dict[str, Any]:
    """The values of a, with those of b of the facts that are taken."""
    out: dict[str, Any] = {}
    for key in {**a, **b}:
        side = b if fact_of(key, a, b) in taken else a
        if key in side:
            out[key] = side[key]
    return out


def _rows(time: str, a: TimedReport, b: TimedReport) -> tuple[Row, ...]:
    ours, theirs = a.times.get(time, {}), b.times.get(time, {})
    return tuple(Row(name, ours.get(name, 0), theirs.get(name, 0)) for name in {**ours, **theirs})


def _by_part(rows: tuple[Row, ...]) -> tuple[Cause, ...]:
    """The parts themselves, where it is not known what made them longer."""
    words = [(row, "longer" if row.more > 0 else "shorter") for row in rows]
    return largest_first(
        Cause(name=f"{word} {row.name}", what=f"{row.a:,} -> {row.b:,} ps", cycles=row.more)
        for row, word in words
    )


def _cause(time: str, leg: Leg, changed: Mapping[str, Any]) -> Cause:
    facts, before, after = leg
    names = [named(fact, changed[fact]) for fact in facts]
    return Cause(
        name=" and ".join(name for name, _ in names),
        what="; ".join(what for _, what in names),
        cycles=after.of(time) - before.of(time),
        parts=_by_part(_rows(time, before, after)),
    )
