"""Drift: by how many cycles a word can be late at its receiver, transfer by transfer, in cycle indices.

Between two resynchronisations the clock of a chip runs at 1 + d of the schedule clock, and no two d differ by
more than the stated drift. A word whose last slot ends at cycle `leave` of the sender is due at cycle `due`
of the receiver; the wire takes due - leave - margin cycles of the schedule clock. With ages counted from the
last resynchronisation before each, the word is late by at most drift / 2 x (age of leave + age of due) less
the margin: the sender is slow, the receiver fast. At a resynchronisation every chip waits for the slowest, so
none is earlier. Words that come early wait in the receiver's queue until their cycle.
Source: RUNTIME_DESKEW and its stalls, ISCA 2022 (hardware.md 3.2); margins are assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from compiler.program.isa import Columns, is_transfer
from compiler.program.manifest import Manifest

PPM = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossings:
    """The transfers of a step: sender, receiver, when words leave and are due, the sum of both ages."""

    row: Int[np.ndarray, " transfers"]
    chip: Int[np.ndarray, " transfers"]
    peer: Int[np.ndarray, " transfers"]
    leave: Int[np.ndarray, " transfers"]
    due: Int[np.ndarray, " transfers"]
    ages: Int[np.ndarray, " transfers"]

    def late(self, drift_ppm: float, margin: int) -> Float[np.ndarray, " transfers"]:
        """Cycles by which each word can be late at worst; 0 or below: never."""
        return drift_ppm * PPM / 2 * self.ages - margin


def crossings(columns: Columns, manifest: Manifest, every: int | None) -> Crossings:
    """The transfers of a step. every: cycles between resynchronisations; one is at the start of each step.

    Of waves, which begin at any cycle of a resynchronisation's period, the ages are the largest there are.
    """
    rows = np.flatnonzero(is_transfer(columns.op))
    table = manifest.link_table()
    number = np.full((manifest.chips, manifest.chips), -1)
    number[table[:, 0], table[:, 1]] = np.arange(len(table))
    chip, peer = columns.chip[rows], columns.peer[rows]
    due = columns.t1[rows]
    leave = due - table[number[chip, peer], 3]
    period = every or int(columns.t1.max(initial=0)) + 1
    ages = leave % period + due % period
    if manifest.waves is not None:
        ages = np.full(len(rows), 2 * period)
    return Crossings(row=rows, chip=chip, peer=peer, leave=leave, due=due, ages=ages)


def tolerated_ppm(found: Crossings, margin: int) -> float:
    """The largest drift at which no word is late; infinite without transfers."""
    most = int(found.ages.max(initial=0))
    return float("inf") if most == 0 else 2 * margin / most / PPM


def drifting(
    found: Crossings, clocks_ppm: Sequence[float], every: int, margin: int, cost: int = 0
) -> Float[np.ndarray, " transfers"]:
    """Cycles of the schedule clock by which each word comes after its cycle, for clocks that are known.

    clocks_ppm: of each chip, how much longer its cycles are. Every chip is followed through all
    resynchronisations, at which it waits for the slowest: this is no bound, but what happens.
    """
    longer = 1 + np.array(clocks_ppm) * PPM
    last = int(max(found.due.max(initial=0), found.leave.max(initial=0)))
    begins = [0.0]
    for _ in range(last // every):
        begins.append(begins[-1] + every * float(longer.max()) + cost)
    start = np.array(begins)

    def at(chip: Int[np.ndarray, " transfers"], cycle: Int[np.ndarray, " transfers"]) -> np.ndarray:
        return start[cycle // every] + cycle % every * longer[chip]

    wire = found.due - found.leave - margin
    return at(found.chip, found.leave) + wire - at(found.peer, found.due)
