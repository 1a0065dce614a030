"""Canonical order of chips: racks that differ only in how chips are numbered get the same table of links.

Classes of chips are refined until those of a class see equally many of each class in each relation; then a
chip of the smallest class is singled out, each in turn, and of all orders that end so the one with the least
table counts. Two orders with one table are a symmetry, and what it makes alike is tried once.
Source: McKay, Piperno, Practical graph isomorphism II (J. Symbolic Computation 60, 2014), sections 2 and 3.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

Table = Int[np.ndarray, "chips chips"]
Classes = Int[np.ndarray, " chips"]
Order = Int[np.ndarray, " chips"]

WORK = 500_000_000  # entries of the table that may be looked at before the search gives up: some seconds


def canonical_order(table: Table, work: int = WORK) -> Order | None:
    """The chips in an order in which `table` is the same, however they were numbered.

    table[a, b] says by a number what `b` is to `a`. None if more than `work` entries would be looked at.
    """
    search = _Search(table, work)
    try:
        start = search.refined(np.zeros(len(table), np.int64))
        return search.best(start, (), search.dive(start)).order
    except _TooMuchError:
        return None


class _TooMuchError(Exception):
    """The search has looked at more than it may."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An order of all chips, and the table in that order."""

    table: bytes
    order: Order


@dataclass(slots=True)
class _Search:
    """The work left; the first order found of each table; symmetries, as the chip that each chip becomes."""

    table: Table
    left: int
    known: dict[bytes, Order] = field(default_factory=lambda: {})
    symmetries: list[Order] = field(default_factory=lambda: [])

    def seen(self, classes: Classes, count: int) -> np.ndarray:
        """For each chip a number made of what it sees: equal for equal views."""
        self.left -= self.table.size
        if self.left < 0:
            raise _TooMuchError
        return _mixed(self.table * count + classes).sum(axis=1, dtype=np.uint64)

    def refined(self, classes: Classes) -> Classes:
        """The coarsest refinement of `classes` whose members see the same; numbered by what they see."""
        count, before = int(classes.max()) + 1, 0
        while before < count < len(classes):
            seen = self.seen(classes, count)
            order = np.lexsort((seen, classes))
            new = (np.diff(seen[order]) != 0) | (np.diff(classes[order]) != 0)
            classes = np.empty_like(classes)
            classes[order] = np.append(0, np.cumsum(new))
            before, count = count, int(classes.max()) + 1
        return classes

    def single(self, classes: Classes, chip: int) -> Classes:
        """The refinement after one chip is singled out of its class."""
        apart = 2 * classes + 1
        apart[chip] -= 1
        return self.refined(np.unique(apart, return_inverse=True)[1])

    def dive(self, classes: Classes) -> _Leaf:
        """Some leaf below: of each class the chip of least number is singled out."""
        while (members := _smallest(classes)) is not None:
            classes = self.single(classes, int(members[0]))
        order = np.argsort(classes)
        leaf = _Leaf(self.table[order][:, order].tobytes(), order)
        twin = self.known.setdefault(leaf.table, order)
        if not np.array_equal(twin, order):
            becomes = np.empty_like(order)
            becomes[twin] = order
            self.symmetries.append(becomes)
        return leaf

    def best(self, classes: Classes, fixed: tuple[int, ...], first: _Leaf) -> _Leaf:
        """The leaf of least table below `classes`, in which the chips `fixed` were singled out.

        first: some leaf below it.
        """
        members = _smallest(classes)
        if members is None:
            return first
        below = {int(chip): self.single(classes, int(chip)) for chip in members}
        looks = {chip: self.look(one) for chip, one in below.items()}
        alike = [chip for chip in below if looks[chip] == min(looks.values())]
        orbit, used, tried, found = np.arange(len(classes)), 0, list[int](), list[_Leaf]()
        for chip in alike:
            leaf = None
            for again in (False, True):
                for becomes in self.symmetries[used:]:
                    if (becomes[list(fixed)] == fixed).all():
                        _merge(orbit, becomes)
                used = len(self.symmetries)
                if (orbit[tried] == orbit[chip]).any():
                    break
                if not again:
                    leaf = self.dive(below[chip])
            else:
                assert leaf is not None
                found.append(self.best(below[chip], (*fixed, chip), leaf))
                tried.append(chip)
        return min(found, key=lambda leaf: leaf.table)

    def look(self, classes: Classes) -> tuple[int, bytes, bytes]:
        """What a refinement looks like, whatever the chips are called."""
        count = int(classes.max()) + 1
        of_class = np.zeros(count, np.uint64)
        of_class[classes] = self.seen(classes, count)
        return count, np.bincount(classes).tobytes(), of_class.tobytes()


def _smallest(classes: Classes) -> Int[np.ndarray, " members"] | None:
    """The members of the smallest class of several chips, the first of equals; None if there is none."""
    sizes = np.bincount(classes)
    several = np.flatnonzero(sizes > 1)
    if not len(several):
        return None
    return np.flatnonzero(classes == several[np.argmin(sizes[several])])


def _merge(orbit: Order, becomes: Order) -> None:
    """Give chips that become one another the same orbit, named by its least chip."""
    while True:
        before = orbit.copy()
        np.minimum.at(orbit, becomes, before)
        np.minimum(orbit, orbit[becomes], out=orbit)
        np.minimum(orbit, orbit[orbit], out=orbit)
        if np.array_equal(orbit, before):
            return


def _mixed(values: Table) -> np.ndarray:
    """64 bits that depend on every bit of each value (splitmix64)."""
    mixed = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)
