"""Why one step takes other cycles than another: by what they were compiled from, and by their chains."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.analyse.chain import HOLDS, RESULTS, WAITS
from compiler.program.isa import LINK
from lpu.diff.side import REMAPPED, Side
from lpu.report.walk import HAND_OVER, BlockChain, ChainExchange

MOST_WORDS = 4  # numbers that a cause names of a record that differs
NEARLY = 1e-9
LINKS = (HOLDS[LINK], RESULTS[LINK], WAITS[LINK])
NAMES = {
    "model": "another model",
    "kv": "another KV format",
    "tp": "another tp",
    "pp": "another number of groups",
    "cp": "another dealing of the context",
    "layout": "another layout",
    "experts": "other slots for experts",
    "placement": "another placement",
    "objective": "another objective",
    "chip": "other chips",
    "rack": "another rack",
    "bridge": "another bridge",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A reason and its cycles. what: both values. parts: where they are, in the chains of both steps."""

    name: str
    what: str
    cycles: int
    parts: tuple["Cause", ...] = field(default=())


def differing(a: Side, b: Side) -> dict[str, dict[str, tuple[Any, Any]]]:
    """What the steps were compiled from and is not the same: by fact, its numbers as (of a, of b)."""
    out: dict[str, dict[str, tuple[Any, Any]]] = {}
    for fact, mine in a.facts.items():
        other = b.facts.get(fact, {})
        keys = [key for key in mine if key in other] if fact in ("chip", "rack") else {**mine, **other}
        found = {key: (mine.get(key), other.get(key)) for key in keys if mine.get(key) != other.get(key)}
        if set(found) - {"rack", "name"} or (fact == "chip" and found):
            out[fact] = found
        elif fact == "rack" and set(mine) != set(other):
            out[fact] = {"rack": (mine.get("rack"), other.get("rack"))}
    if "chip" in out and set(out["chip"]) == {"chip"}:  # a name of the same numbers
        del out["chip"]
    if "tp" in out and "cp" in out:  # a head's context is dealt over chips of its group
        out["tp"] |= out.pop("cp")
    return out


def named(fact: str, values: Mapping[str, tuple[Any, Any]]) -> tuple[str, str]:
    """The name of a cause, and what differs."""
    keys = [key for key in values if key not in ("parameters", "wiring")] or list(values)
    shown = [key for key in keys if key not in ("rack", "name", "chip")] or keys
    what = "; ".join(f"{key} {values[key][0]} -> {values[key][1]}" for key in shown[:MOST_WORDS])
    what += f"; and {len(shown) - MOST_WORDS} more" if len(shown) > MOST_WORDS else ""
    if fact == "rack":
        if "faults" in values and "rack" not in values:  # links that are gone follow from them
            return "faults of the rack", f"{values['faults'][0]} -> {values['faults'][1]}"
        if "rack" in values:
            what = f"{values['rack'][0]} -> {values['rack'][1]} ({what})" if "rack" not in shown else what
        return _rack(values, shown), what
    if fact == REMAPPED:
        return "faults of the rack, with blocks kept in place by lpu remap", what
    if fact in ("context", "batch", "chunk"):
        size = "longer" if fact == "context" else "larger"
        less = "shorter" if fact == "context" else "smaller"
        return f"a {size if values[fact][1] > values[fact][0] else less} {fact}", what
    if fact == "chip" and len(shown) == 1 and shown[0] != "chip":
        return f"other {shown[0]}", what
    return NAMES[fact], what


def _rack(values: Mapping[str, tuple[Any, Any]], shown: Sequence[str]) -> str:
    """Fewer or more lanes, longer or shorter hops if it is only that; else another rack."""
    for what, less, more in (
        ("lanes", "fewer lanes", "more lanes"),
        ("hop_ns", "shorter link hops", "longer link hops"),
    ):
        if all(key.endswith(f".{what}") for key in shown):
            pairs = [_numbers(values[key]) for key in shown]
            if all(one < other for one, other in pairs):
                return more
            if all(one > other for one, other in pairs):
                return less
    return NAMES["rack"]


def _numbers(pair: tuple[Any, Any]) -> tuple[float, float]:
    first, second = (float(str(one).split()[0]) if str(one)[0].isdigit() else 0.0 for one in pair)
    return first, second


def structural(a: Side, b: Side) -> tuple[Cause, ...]:
    """The difference of two steps by their chains: they add up to it, the largest first."""
    found: list[Cause] = []
    for kind in dict.fromkeys((*a.kinds(), *b.kinds())):
        ours, theirs = ([one for one in side.blocks if one.kind == kind] for side in (a, b))
        found += _of_kind(kind, ours, theirs, [side.units.get(kind, 0) for side in (a, b)])
    return largest_first(found)


def largest_first(causes: Iterable[Cause]) -> tuple[Cause, ...]:
    """Those of the most cycles first, whatever their sign; none without cycles."""
    return tuple(sorted((one for one in causes if one.cycles), key=lambda one: (-abs(one.cycles), one.name)))


def _of_kind(
    kind: str, ours: Sequence[BlockChain], theirs: Sequence[BlockChain], calls: Sequence[int]
) -> list[Cause]:
    """The causes in blocks of one kind, of which there are `calls` on both sides."""
    totals = [sum(one.calls * one.cycles for one in side) for side in (ours, theirs)]
    if not all(calls):
        more = "more" if calls[1] else "fewer"
        name = f"{max(calls)} {more} {_plural(kind, max(calls))}"
        return [Cause(name=name, what=f"{calls[0]} -> {calls[1]}", cycles=totals[1] - totals[0])]

    def scaled(cycles: int) -> int:
        return cycles * calls[1] // calls[0]

    out: list[Cause] = []
    if calls[0] != calls[1]:
        count = calls[1] - calls[0]
        out.append(
            Cause(
                name=f"{abs(count)} {'more' if count > 0 else 'fewer'} {_plural(kind, abs(count))}",
                what=f"{calls[0]} -> {calls[1]}",
                cycles=scaled(totals[0]) - totals[0],
            )
        )
    exchanges = [[(one.calls, each) for one in side for each in one.exchanges] for side in (ours, theirs)]
    for leaves in (False, True):
        sides = [[(n, e) for n, e in side if (e.before == HAND_OVER) == leaves] for side in exchanges]
        out += _exchange_causes(kind, leaves, sides, calls)
    cells = [_cells(side) for side in (ours, theirs)]
    known = any(exchanges)  # a report tells of no exchanges
    for part in dict.fromkeys((*cells[0], *cells[1])):
        if known and part in LINKS:
            continue
        before, after = cells[0].get(part, 0), cells[1].get(part, 0)
        word = "longer" if after > scaled(before) else "shorter"
        name = f"{word} {'' if part.startswith('waits') else 'work: '}{part} in {kind}"
        out.append(Cause(name=name, what=f"{before:,} -> {after:,} cycles", cycles=after - scaled(before)))
    rest = totals[1] - totals[0] - sum(one.cycles for one in out)
    return [*out, Cause(name=f"rounding in {kind}", what="", cycles=rest)] if rest else out


Counted = Sequence[tuple[int, ChainExchange]]  # calls, and an exchange of each


def _exchange_causes(kind: str, leaves: bool, sides: Sequence[Counted], calls: Sequence[int]) -> list[Cause]:
    """What links take more: exchanges that are more or fewer, or over more links, or each longer.

    leaves: of those that end a block and hand its result on, else of those inside it.
    """
    totals = [sum(n * e.cycles for n, e in side) for side in sides]
    counts = [sum(n for n, _ in side) for side in sides]
    hops = [sum(n * e.hops for n, e in side) for side in sides]
    cycles = totals[1] - totals[0] * calls[1] // calls[0]
    what = "hand-over" if leaves else "exchange"
    where = f"after {_plural(kind, 2)}" if leaves else f"in each of the {_plural(kind, 2)}"
    per = [1, 1] if leaves else calls
    for word, numbers in ((what, counts), ("link hop", hops)):
        before, after = (count / call for count, call in zip(numbers, per, strict=True))
        if leaves:
            before = before * calls[1] / calls[0]
        if abs(after - before) > NEARLY:
            name = f"{_count(after - before, word if word == what or not leaves else f'{word} of {what}s')}"
            text = f"{before:g} -> {after:g}"
            text += f", {hops[0]} -> {hops[1]} link hops in all" if word == what else ""
            return [Cause(name=f"{name} {where}", what=text, cycles=cycles)]
    longer = "longer" if cycles > 0 else "shorter"
    where = where if leaves else f"in {kind}"
    return [Cause(name=f"{longer} {what}s {where}", what=f"{counts[1]} of them", cycles=cycles)]


def _count(more: float, word: str) -> str:
    """`one more exchange`, `2 fewer link hops`."""
    number = "one" if abs(more) == 1 else f"{abs(more):g}"
    first, _, rest = word.partition(" of ")
    many = first if abs(more) == 1 else f"{first}s"
    return f"{number} {'more' if more > 0 else 'fewer'} {many}{f' of {rest}' if rest else ''}"


def _cells(side: Sequence[BlockChain]) -> dict[str, int]:
    out: dict[str, int] = {}
    for block in side:
        for part in block.parts:
            out[part.part] = out.get(part.part, 0) + block.calls * part.cycles
    return out


def _plural(kind: str, count: int) -> str:
    if kind.endswith(("blocks", "layers")):
        return kind if count != 1 else kind.removesuffix("s")
    word = kind if kind.endswith(("block", "layer")) else f"{kind} block"
    return word if count == 1 else f"{word}s"
