"""Rules 1 and 3: units and lanes are held by one row at a time; the words of a cycle fit the ports."""

from typing import Any

import numpy as np

from compiler.program.isa import Op
from lpu.check.cycles import Held
from lpu.check.findings import Findings
from lpu.check.machine import CYCLE, TIME_BITS, Batches, Machine, is_transfer, split

_RATE = 1024  # ports are counted in 1/1024 words per cycle
_BATCH_ROWS = 1 << 14


def units(findings: Findings, machine: Machine, held: Held) -> None:
    """Rule 1 for the units of the chips and for the lanes of the links."""
    c = findings.columns
    planes, last = machine.planes, 2 * machine.planes + machine.chains
    low, high = np.full(len(Op), 2 * planes), np.full(len(Op), last)
    low[[Op.MM, Op.QK, Op.PV]], high[[Op.MM, Op.QK, Op.PV]] = 0, planes
    low[Op.WB], high[Op.WB] = planes, 2 * planes
    for ops, unit in (((Op.TAKE, Op.KVIN), last), ((Op.GIVE, Op.KVOUT), last + 1)):  # the host lane, each way
        low[list(ops)], high[list(ops)] = unit, unit + 1
    low[[Op.SEND, Op.FORWARD]], high[[Op.SEND, Op.FORWARD]] = -1, 0
    fits = (c.unit >= low[c.op]) & (c.unit < high[c.op])
    bad = np.flatnonzero(~fits)
    findings.add(
        1,
        bad,
        lambda i: f"on unit {c.unit[bad[i]]}, units {low[c.op[bad[i]]]} .. {high[c.op[bad[i]]] - 1} do this",
    )
    rows = np.flatnonzero(fits & (c.unit >= 0))
    _exclusive(findings, rows, c.chip[rows] * (last + 2) + c.unit[rows], held.hold, "unit")
    _lanes(findings, machine, held)


def _lanes(findings: Findings, machine: Machine, held: Held) -> None:
    c = findings.columns
    if not len(machine.lanes):
        return
    rows = np.flatnonzero(held.link >= 0)
    rows = rows[(c.lane[rows] >= 0) & (c.lane[rows] <= machine.lanes[held.link[rows]] - c.aux[rows])]
    begins = np.cumsum(machine.lanes) - machine.lanes
    start = begins[held.link[rows]] + c.lane[rows]
    pieces = split(start, start + c.aux[rows], int(machine.lanes.sum()))
    _exclusive(findings, rows[pieces.interval], pieces.segment, held.hold, "lanes")


def _exclusive(findings: Findings, rows: np.ndarray, place: np.ndarray, hold: np.ndarray, what: str) -> None:
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


def ports(findings: Findings, machine: Machine, held: Held) -> None:
    """Rule 3: the words that all rows of a chip move in a cycle."""
    c = findings.columns
    rows = np.flatnonzero(held.hold > 0)
    sends = rows[is_transfer(c.op[rows])]
    chip = np.concatenate([c.chip[rows], c.peer[sends]])  # a transfer loads both of its ends
    row = np.concatenate([rows, sends])
    batches = Batches(np.bincount(chip, minlength=machine.chips), _BATCH_ROWS)
    for some in batches.of(chip):
        _ports(findings, machine, held, row[some], chip[some], some >= len(rows))


def _ports(
    findings: Findings, machine: Machine, held: Held, row: np.ndarray, chip: np.ndarray, arrives: np.ndarray
) -> None:
    """All rows of some chips; `arrives`: the chip receives what the row sends."""
    c, hold = findings.columns, held.hold[row]
    rate = (_RATE * held.words[row] + hold - 1) // hold
    begin = np.maximum(np.where(arrives, c.t1[row] - hold, c.t0[row]), 0)
    place = chip << TIME_BITS
    key = np.concatenate([(place | begin) << 1 | 1, place + begin + hold << 1])  # ends before beginnings
    order = np.argsort(key)
    key, load = key[order], np.cumsum(np.concatenate([rate, -rate])[order])
    last = np.ones(len(key), bool)
    last[:-1] = key[1:] >> 1 != key[:-1] >> 1  # the last event of a cycle
    over = np.flatnonzero(last & (load > _RATE * machine.ports) & (key & 1).astype(bool))
    findings.add(
        3,
        row[order[over]],
        lambda i: (
            f"at cycle {key[over[i]] >> 1 & CYCLE} chip {key[over[i]] >> TIME_BITS + 1} moves "
            f"{load[over[i]] / _RATE:.1f} words, it has {machine.ports} ports"
        ),
    )
