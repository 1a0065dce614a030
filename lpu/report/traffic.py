"""Traffic of a program: the share of each level's link lanes that it reserves, and the bytes it moves."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.analyse.holds import link_rows, slot_cycles
from compiler.program.isa import WORD_BYTES, Columns, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.packed import RANKS
from lpu.report.words import percent, size
from lpu.screen import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUse:
    """Use of the links of one level: lane slots reserved and available, and the busiest link."""

    level: str
    links: int
    links_used: int
    moved_bytes: int
    reserved_slots: int
    available_slots: int
    busiest: tuple[int, int]
    busiest_share: float

    def __str__(self) -> str:
        share = self.reserved_slots / self.available_slots
        a, b = self.busiest
        if not self.links_used:
            return f"    {plain(self.level, 40):<12}{percent(share):>9} | none of {self.links} links used"
        name = plain(self.level, 40)
        return (
            f"    {name:<12}{percent(share):>9} | {a} -> {b} {percent(self.busiest_share)} | "
            f"{size(self.moved_bytes)} over {self.links_used} of {self.links} links"
        )


def link_levels(manifest: Manifest) -> Int[np.ndarray, " links"]:
    """The level of each link of the manifest: the innermost one with a group that holds both its ends."""
    links = manifest.link_table()
    out = np.full(len(links), len(manifest.levels) - 1)
    for level in range(len(manifest.levels) - 1, -1, -1):
        group = np.full(manifest.chips, -1)
        for index, chips in enumerate(manifest.levels[level].groups):
            group[list(chips)] = index
        out[group[links[:, 0]] == group[links[:, 1]]] = level
    return out


class Moved(NamedTuple):
    """What goes from one chip to another: lane slots reserved, words moved."""

    chip: Int[np.ndarray, " pairs"]
    peer: Int[np.ndarray, " pairs"]
    slots: Int[np.ndarray, " pairs"]
    words: Int[np.ndarray, " pairs"]


def moved(manifest: Manifest, columns: Columns, ranks: Columns, hold: Int[np.ndarray, " rows"]) -> Moved:
    """What the rows of one call move from rank to rank; they hold their lanes for `hold` cycles.

    columns: the rows with their chips; ranks: the same rows with ranks for chips.
    """
    rows = np.flatnonzero(is_transfer(columns.op))
    pairs = RANKS.pack(ranks.chip[rows], ranks.peer[rows])
    names, which = np.unique(pairs, return_inverse=True)
    slots = hold[rows] // slot_cycles(manifest, columns.chip[rows], columns.peer[rows]) * columns.aux[rows]
    sums = (np.bincount(which, each, len(names)) for each in (slots, columns.n[rows] * manifest.rows))
    return Moved(*RANKS.unpack(names), *(each.astype(np.int64) for each in sums))


def link_use(manifest: Manifest, traffic: Moved, cycles: int) -> tuple[LinkUse, ...]:
    """Use of each level's links by what moves from chip to chip in a step of `cycles`."""
    links = manifest.link_table()
    which = link_rows(manifest, traffic.chip, traffic.peer)
    reserved = np.bincount(which, traffic.slots, len(links)).astype(np.int64)
    words = np.bincount(which, traffic.words, len(links)).astype(np.int64)
    available = np.maximum(cycles // links[:, 4] * links[:, 2], 1)
    level_of = link_levels(manifest)
    out: list[LinkUse] = []
    for level, (name, *_) in enumerate(manifest.levels):
        mine = np.flatnonzero(level_of == level)
        if not len(mine):
            continue
        busiest = int(mine[np.argmax(reserved[mine] / available[mine])])
        out.append(
            LinkUse(
                level=name,
                links=len(mine),
                links_used=int((reserved[mine] > 0).sum()),
                moved_bytes=int(words[mine].sum()) * WORD_BYTES,
                reserved_slots=int(reserved[mine].sum()),
                available_slots=int(available[mine].sum()),
                busiest=(int(links[busiest, 0]), int(links[busiest, 1])),
                busiest_share=float(reserved[busiest] / available[busiest]),
            )
        )
    return tuple(out)
