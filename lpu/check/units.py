"""Rules 1 and 3: units and lanes are held by one row at a time; the words of a cycle fit the ports."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from compiler.program.instruction_set import unit_classes
from compiler.program.isa import DRAIN, HOST_IN, HOST_OUT, LINK, MXM, UNIT_CLASSES, VXM, is_transfer
from lpu.check.cycles import Busy
from lpu.check.findings import Findings
from lpu.check.rows import CYCLE, TIME_BITS, Batches, split
from lpu.check.stated import Stated

_RATE = 1024  # ports are counted in 1/1024 words per cycle
_BATCH_ROWS = 1 << 14


def units(findings: Findings, stated: Stated, busy: Busy) -> None:
    """Rule 1 for the units of the chips and for the lanes of the links."""
    c = findings.columns
    low, high = _ranges(stated)
    fits = (c.unit >= low[c.op]) & (c.unit < high[c.op])
    bad = np.flatnonzero(~fits)
    findings.add(
        1,
        bad,
        lambda i: f"on unit {c.unit[bad[i]]}, units {low[c.op[bad[i]]]} .. {high[c.op[bad[i]]] - 1} do this",
    )
    rows = np.flatnonzero(fits & (c.unit >= 0))
    _exclusive(findings, rows, c.chip[rows] * high.max() + c.unit[rows], busy.hold, "unit")
    _lanes(findings, stated, busy)


def _ranges(stated: Stated) -> tuple[Int[np.ndarray, " opcodes"], Int[np.ndarray, " opcodes"]]:
    """The units [low, high) of a chip that each opcode may hold: docs/timing.md, "Units of one chip"."""
    planes, last = stated.planes, 2 * stated.planes + stated.chains
    of = np.zeros((UNIT_CLASSES, 2), np.int64)
    of[MXM], of[DRAIN], of[VXM] = (0, planes), (planes, 2 * planes), (2 * planes, last)
    of[LINK], of[HOST_IN], of[HOST_OUT] = (-1, 0), (last, last + 1), (last + 1, last + 2)
    of_opcode = of[unit_classes()]
    return of_opcode[:, 0], of_opcode[:, 1]


def _lanes(findings: Findings, stated: Stated, busy: Busy) -> None:
    c = findings.columns
    if not len(stated.lanes):
        return
    rows = np.flatnonzero(busy.link >= 0)
    rows = rows[(c.lane[rows] >= 0) & (c.lane[rows] <= stated.lanes[busy.link[rows]] - c.aux[rows])]
    begins = np.cumsum(stated.lanes) - stated.lanes
    start = begins[busy.link[rows]] + c.lane[rows]
    cuts = split(start, start + c.aux[rows], int(stated.lanes.sum()))
    _exclusive(findings, rows[cuts.interval], cuts.segment, busy.hold, "lanes")


def _exclusive(
    findings: Findings,
    rows: Int[np.ndarray, " entries"],
    place: Int[np.ndarray, " entries"],
    hold: Int[np.ndarray, " rows"],
    what: str,
) -> None:
    """Rows of one place must not begin before the row before them is done."""
    c = findings.columns
    key = place << TIME_BITS | c.t0[rows]
    order = np.argsort(key)
    rows, key = rows[order], key[order]
    late = np.flatnonzero(key[:-1] + hold[rows[:-1]] > key[1:])
    late = late[key[late] >> TIME_BITS == key[late + 1] >> TIME_BITS]

    def text(i: int) -> str:
        before = rows[late[i]]
        end = int(c.t0[before] + hold[before])
        mine = _name(findings, rows[late[i] + 1])
        return f"needs {what} {mine}, held until cycle {end} by {findings.place(before)}"

    findings.add(1, rows[late + 1], text)


def _name(findings: Findings, row: Any) -> str:
    c = findings.columns
    if c.unit[row] >= 0:
        return str(c.unit[row])
    return f"{c.lane[row]} .. {c.lane[row] + c.aux[row] - 1} to chip {c.peer[row]}"


def ports(findings: Findings, stated: Stated, busy: Busy) -> None:
    """Rule 3: the words that all rows of a chip move in a cycle."""
    c = findings.columns
    rows = np.flatnonzero(busy.hold > 0)
    sends = rows[is_transfer(c.op[rows])]
    chip = np.concatenate([c.chip[rows], c.peer[sends]])  # a transfer loads both of its ends
    row = np.concatenate([rows, sends])
    batches = Batches(np.bincount(chip, minlength=stated.chips), _BATCH_ROWS)
    for some in batches.of(chip):
        _ports(findings, stated, busy, row[some], chip[some], some >= len(rows))


def _ports(
    findings: Findings,
    stated: Stated,
    busy: Busy,
    row: Int[np.ndarray, " entries"],
    chip: Int[np.ndarray, " entries"],
    arrives: Bool[np.ndarray, " entries"],
) -> None:
    """All rows of some chips; `arrives`: the chip receives what the row sends."""
    c, hold = findings.columns, busy.hold[row]
    rate = (_RATE * busy.words[row] + hold - 1) // hold
    begin = np.maximum(np.where(arrives, c.t1[row] - hold, c.t0[row]), 0)
    place = chip << TIME_BITS
    key = np.concatenate([(place | begin) << 1 | 1, place + begin + hold << 1])  # ends before beginnings
    order = np.argsort(key)
    key, load = key[order], np.cumsum(np.concatenate([rate, -rate])[order])
    last = np.ones(len(key), bool)
    last[:-1] = key[1:] >> 1 != key[:-1] >> 1  # the last event of a cycle
    over = np.flatnonzero(last & (load > _RATE * stated.ports) & (key & 1).astype(bool))
    findings.add(
        3,
        row[order[over]],
        lambda i: (
            f"at cycle {key[over[i]] >> 1 & CYCLE} chip {key[over[i]] >> TIME_BITS + 1} moves "
            f"{load[over[i]] / _RATE:.1f} words, it has {stated.ports} ports"
        ),
    )
