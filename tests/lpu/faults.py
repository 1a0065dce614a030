"""Seeded faults in the columns of a program: what a broken compiler or a flipped bit would do."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.program.isa import Columns, Op
from compiler.program.manifest import Manifest, Regions
from lpu.link.link import Dataflow

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Faulty:
    """A program's columns and manifest after one fault."""

    columns: Columns
    manifest: Manifest


def _drop(op: Op) -> Callable[[Columns, Manifest, Random], Faulty]:
    def fault(columns: Columns, manifest: Manifest, random: Random) -> Faulty:
        keep = np.ones(len(columns), bool)
        keep[random.choice(np.flatnonzero(columns.op == op))] = False
        return Faulty(columns.take(keep), manifest)

    return fault


def _shift(cycles: int) -> Callable[[Columns, Manifest, Random], Faulty]:
    def fault(columns: Columns, manifest: Manifest, random: Random) -> Faulty:
        late = columns.t0 + cycles >= 0
        row = random.choice(np.flatnonzero(late))
        t0, t1 = columns.t0.copy(), columns.t1.copy()
        t0[row] += cycles
        t1[row] += cycles
        return Faulty(replace(columns, t0=t0, t1=t1), manifest)

    return fault


def _field(name: str, change: Callable[[Columns, int, Random, Manifest], int], *ops: Op) -> Any:
    def fault(columns: Columns, manifest: Manifest, random: Random) -> Faulty:
        among = np.isin(columns.op, ops) if ops else getattr(columns, name) >= 0
        row = int(random.choice(np.flatnonzero(among)))
        values = getattr(columns, name).copy()
        values[row] = change(columns, row, random, manifest)
        return Faulty(replace(columns, **{name: values}), manifest)

    return fault


def _near(name: str) -> Callable[[Columns, int, Random, Manifest], int]:
    def change(columns: Columns, row: int, random: Random, manifest: Manifest) -> int:
        step = int(random.integers(1, 8)) * manifest.rows
        value = int(getattr(columns, name)[row])
        return value + step if random.integers(2) or value < step else value - step

    return change


def _other(limit: Callable[[Manifest], int], name: str) -> Any:
    def change(columns: Columns, row: int, random: Random, manifest: Manifest) -> int:
        old = int(getattr(columns, name)[row])
        return int(random.choice([v for v in range(limit(manifest)) if v != old]))

    return change


def _swap(names: tuple[str, ...], *ops: Op) -> Any:
    def fault(columns: Columns, manifest: Manifest, random: Random) -> Faulty:
        first = int(random.choice(np.flatnonzero(np.isin(columns.op, ops)) if ops else len(columns)))
        same = (columns.op == columns.op[first]) & (columns.n == columns.n[first])
        differ = np.any([getattr(columns, name) != getattr(columns, name)[first] for name in names], axis=0)
        if "t0" not in names:
            same &= columns.chip == columns.chip[first]
        others = np.flatnonzero(same & differ)
        second = int(random.choice(others)) if len(others) else int(np.flatnonzero(differ)[0])
        changed = {name: getattr(columns, name).copy() for name in names}
        for values in changed.values():
            values[[first, second]] = values[[second, first]]
        return Faulty(replace(columns, **changed), manifest)

    return fault


def _overlap(columns: Columns, manifest: Manifest, random: Random) -> Faulty:
    regions = [list(chip) for chip in manifest.regions]
    chip = int(random.choice(np.unique(columns.chip)))
    which = int(random.integers(1, 3))
    region = regions[chip][which]
    regions[chip][which] = region._replace(base=region.base - int(random.integers(1, 100)))
    return Faulty(columns, replace(manifest, regions=tuple(Regions(*chip) for chip in regions)))


def _onto(names: tuple[str, ...], transfers: bool) -> Any:
    """One row moved onto the unit (or lanes) and cycle of another of the same chip and opcode."""

    def fault(columns: Columns, manifest: Manifest, random: Random) -> Faulty:
        moves = np.isin(columns.op, (Op.SEND, Op.FORWARD))
        first = int(random.choice(np.flatnonzero(moves == transfers)))
        same = (columns.op == columns.op[first]) & (columns.chip == columns.chip[first])
        same &= (columns.peer == columns.peer[first]) & (np.arange(len(columns)) != first)
        others = np.flatnonzero(same)
        second = int(random.choice(others)) if len(others) else (first + 1) % len(columns)
        changed = {name: getattr(columns, name).copy() for name in names}
        length = columns.t1[second] - columns.t0[second]
        for name, values in changed.items():
            values[second] = values[first] + (length if name == "t1" else 0)
        if "t1" in names:
            changed["t1"][second] = changed["t0"][second] + length
        return Faulty(replace(columns, **changed), manifest)

    return fault


FAULTS: dict[str, Callable[[Columns, Manifest, Random], Faulty]] = {
    "drop a send": _drop(Op.SEND),
    "drop a matmul": _drop(Op.MM),
    "drop a reduce": _drop(Op.RED),
    "drop a write-back": _drop(Op.WB),
    "a row one cycle late": _shift(1),
    "a row one cycle early": _shift(-1),
    "a row many cycles late": _shift(5000),
    "a row many cycles early": _shift(-200),
    "wrong source address": _field("src", _near("src")),
    "wrong second source address": _field("src2", _near("src2")),
    "wrong destination address": _field("dst", _near("dst")),
    "wrong peer": _field("peer", _other(lambda m: m.chips, "peer"), Op.SEND, Op.FORWARD),
    "swapped times": _swap(("t0", "t1")),
    "wrong accumulator": _field("dst", _other(lambda m: m.chip.accumulators, "dst"), Op.MM),
    "swapped weight tiles": _swap(("src2",), Op.MM),
    "overlapping regions": _overlap,
    "two rows on one unit": _onto(("unit", "t0", "t1"), transfers=False),
    "a lane slot used twice": _onto(("lane", "t0", "t1"), transfers=True),
}


def same(one: Dataflow, two: Dataflow) -> bool:
    """Whether two dataflows compute the same from the same, row by row."""
    names = ("result", "load_order", "load", "loads", "drain", "region", "append", "logits")
    pairs = [(getattr(one, name), getattr(two, name)) for name in names]
    pairs += [(one.lines.row, two.lines.row), (one.lines.line, two.lines.line)]
    pairs += list(zip(one.lines.first + one.lines.found, two.lines.first + two.lines.found, strict=True))
    pairs += [(getattr(one.columns, name), getattr(two.columns, name)) for name in ("op", "aux", "n")]
    return one.token == two.token and all(np.array_equal(a, b) for a, b in pairs)
