"""Numbering: one way to number the chips of a rack, whatever they are called in the file that describes it.

What the compiler chooses by chip number (groups, ranks in a group, equally good routes) it chooses by these
numbers. So racks that differ only in the numbers of their chips get the same program but for those numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int

from fabric.canonical import canonical_order
from fabric.faults.living import living, living_order
from fabric.link import Wire, directed
from fabric.near import near_order
from fabric.paths import WORDS, hops
from fabric.rack import Rack, RackLevel
from fabric.regular import axes_of, candidates, order_of, relations, tray_of

SHOWN = 512  # chips in a text, 16 to a line
MOST_ALIKE = 512  # chips of a rack that is compared with regular ones, and whose fastest paths are looked for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbering:
    """A rack with its chips numbered anew; chips: of each the number that it has in the file.

    A program is for `given`, and is made for `rack`, which is the same machine.
    """

    given: Rack
    rack: Rack
    chips: Int[np.ndarray, " chips"]

    def __str__(self) -> str:
        if self.rack is self.given:
            return f"{self.given.name}: chips keep their numbers"
        names = self.chips[:SHOWN].tolist()
        lines = [" ".join(map(str, names[i : i + 16])) for i in range(0, len(names), 16)]
        more = [f"... and {len(self.chips) - SHOWN} more"] if len(self.chips) > SHOWN else []
        return "\n  ".join([f"{self.given.name}: chips in the order", *lines, *more])

    def named(self, chips: Sequence[int]) -> tuple[int, ...]:
        """The numbers in the file of chips of `rack`."""
        return tuple(self.chips[list(chips)].tolist())


_known: "WeakKeyDictionary[Rack, tuple[Rack, np.ndarray] | None]" = WeakKeyDictionary()


def numbering(rack: Rack) -> Numbering:
    """The rack with its chips numbered by how they are wired; computed once per rack.

    Of levels: their own order, axes that can be exchanged from the inside out. Given link by link: the order
    of the regular rack that it is, else the canonical one with the closest chips first.
    """
    if rack not in _known:
        found = _numbered(rack)
        _known[rack] = None if found.rack is rack else (found.rack, found.chips)  # nothing that holds the key
    known = _known[rack]
    return as_given(rack) if known is None else Numbering(given=rack, rack=known[0], chips=known[1])


def in_order(rack: Rack, order: Sequence[int]) -> Numbering:
    """A broken rack with the chips that work in this order."""
    return Numbering(given=rack, rack=living(rack, order), chips=np.array(order, np.int64))


def as_given(rack: Rack) -> Numbering:
    """The numbers of the file, without chips that are lost."""
    if rack.damage is not None:
        lost = set(rack.damage.lost)
        return in_order(rack, [chip for chip in range(rack.chips) if chip not in lost])
    return Numbering(given=rack, rack=rack, chips=np.arange(rack.chips))


def _numbered(rack: Rack) -> Numbering:
    if rack.damage is not None:
        return in_order(rack, living_order(rack, numbering(rack.damage.whole).chips.tolist()))
    kinds, spec = _kinds(rack), rack.spec
    if not spec.links:
        if any(level.links for level in spec.levels):
            return as_given(rack)
        links = [int(kinds[rack.links.level == i].max(initial=0)) for i in range(len(spec.levels))]
        axes = axes_of(spec.levels, links)
        return _renumbered(rack, order_of(axes), tray_of(axes))
    mine = hops(rack) * (2 + kinds.max(initial=0))
    mine[rack.links.a, rack.links.b] = 1 + kinds
    order = canonical_order(mine)
    if order is None:  # so large and so symmetric that its chips keep their numbers
        return as_given(rack)
    form = mine[order][:, order]
    few = rack.chips <= MOST_ALIKE
    for regular in candidates(rack.chips, (np.bincount(kinds) // 2).tolist()) if few else ():
        other = relations(rack.chips, regular.cables)
        alike = np.array_equal(np.sort(other, axis=None), np.sort(mine, axis=None))
        theirs = canonical_order(other) if alike else None
        if theirs is not None and np.array_equal(other[theirs][:, theirs], form):
            return _renumbered(rack, order[np.argsort(theirs)], regular.tray)
    far = _distance(rack) if few else hops(rack)
    near = near_order(far[np.ix_(order, order)])
    return _renumbered(rack, order[near], rack.chips)


def _renumbered(rack: Rack, chips: Int[np.ndarray, " chips"], tray: int) -> Numbering:
    """The rack with its chips in this order, `tray` of them to a tray; itself if that is what it is."""
    trays = tuple(tuple(range(first, first + tray)) for first in range(0, rack.chips, tray))
    natural = np.array_equal(chips, np.arange(rack.chips))
    if natural and rack.levels[0].groups == trays:
        return as_given(rack)
    number, links = np.argsort(chips), rack.links
    numbers = np.stack([number[links.a], number[links.b], links.lanes, links.hop_cycles, links.slot_cycles])
    wires = [Wire(a, b, lanes, hop, slot, 0) for a, b, lanes, hop, slot in numbers.T.tolist() if a < b]
    levels = (RackLevel(name="tray", kind="numbered anew", groups=trays),)
    again = replace(rack, links=directed(wires, rack.chips), levels=levels)
    return Numbering(given=rack, rack=again, chips=chips)


def _kinds(rack: Rack) -> Int[np.ndarray, " links"]:
    """The kind of every link: links of equal numbers are of one kind, the fastest are of kind 0."""
    links = rack.links
    numbers = (_cycles(rack), links.hop_cycles, links.slot_cycles, links.lanes)
    return np.unique(np.stack(numbers, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _cycles(rack: Rack) -> Int[np.ndarray, " links"]:
    """Cycles of a message of WORDS words over each link."""
    links = rack.links
    return links.hop_cycles - (-WORDS // links.lanes) * links.slot_cycles


def _distance(rack: Rack) -> Int[np.ndarray, "chips chips"]:
    """Cycles of a message of WORDS words between every two chips, over the fastest path."""
    links, far = rack.links, np.full((rack.chips, rack.chips), 1 << 40)
    far[links.a, links.b] = _cycles(rack)
    np.fill_diagonal(far, 0)
    for by in range(rack.chips):
        np.minimum(far, far[:, by, None] + far[by] + rack.forward_cycles, out=far)
    return far
