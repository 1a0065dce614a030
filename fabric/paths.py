"""The paths that a message may take: fewest hops first, ties spread by a salt, nothing left to chance."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int

from fabric.rack import Rack


class _Reach:
    """What is kept per rack: hop counts, and who sends to each chip."""

    def __init__(self, rack: Rack) -> None:
        self.hops = _breadth_first(rack)
        self.hops.flags.writeable = False
        order = np.lexsort((rack.links.a, rack.links.b))
        starts = np.searchsorted(rack.links.b[order], np.arange(rack.chips + 1))
        senders = rack.links.a[order].tolist()
        self.senders: list[list[int]] = [senders[first:last] for first, last in pairwise(starts.tolist())]
        self._rows: dict[int, list[int]] = {}

    def row(self, source: int) -> list[int]:
        """Hops from `source` to every chip."""
        if source not in self._rows:
            self._rows[source] = self.hops[source].tolist()
        return self._rows[source]


_reaches: "WeakKeyDictionary[Rack, _Reach]" = WeakKeyDictionary()


def hops(rack: Rack) -> Int[np.ndarray, "chips chips"]:
    """The fewest links between every pair of chips; read-only, computed once per rack."""
    return _reach(rack).hops


def shortest_path(rack: Rack, a: int, b: int, salt: int = 0) -> tuple[int, ...]:
    """Chips from `a` to `b`, both included, over the fewest links.

    Among equally short paths `salt` chooses: 0, 1, 2 ... run through all of them.
    """
    reach = _reach(rack)
    row = reach.row(a)
    path = [b]
    while path[-1] != a:
        before = _before(reach, row, path[-1])
        salt, choice = divmod(salt, len(before))
        path.append(_relative(before, a, rack.chips)[choice])
    return tuple(reversed(path))


def multicast_tree(rack: Rack, source: int, targets: Sequence[int], salt: int = 0) -> list[tuple[int, int]]:
    """Links (parent, child) that take a message from `source` to all `targets`, parents before children.

    Every target is reached in the fewest hops. A parent is, in this order of preference: a target itself;
    the chip that could serve most children; the choice of `salt`. Chip numbers count relative to the source
    only, so that equal groups of a symmetric rack get equal trees.
    """
    reach = _reach(rack)
    row = reach.row(source)
    layers: list[dict[int, None]] = [{} for _ in range(max((row[t] for t in targets), default=0) + 1)]
    for target in targets:
        layers[row[target]][target] = None
    edges: list[tuple[int, int]] = []
    for depth in range(len(layers) - 1, 0, -1):
        children = _relative(layers[depth], source, rack.chips)
        before = [_relative(_before(reach, row, child), source, rack.chips) for child in children]
        parents = _parents(before, layers[depth - 1], source, rack.chips, salt)
        layers[depth - 1].update(dict.fromkeys(parents))
        edges[:0] = zip(parents, children, strict=True)
    return edges


def _parents(
    before: list[list[int]], ready: Mapping[int, None], source: int, chips: int, salt: int
) -> list[int]:
    """One parent for each child out of its candidates `before`; `ready`: targets of their layer."""
    serves = Counter(chip for candidates in before for chip in candidates if chip not in ready)
    rank = {chip: (count, _mix(salt, (chip - source) % chips)) for chip, count in serves.items()}
    parents: list[int] = []
    for turn, candidates in enumerate(before):
        there = [chip for chip in candidates if chip in ready]
        parents.append(there[(salt + turn) % len(there)] if there else max(candidates, key=rank.__getitem__))
    return parents


def _before(reach: _Reach, row: list[int], chip: int) -> list[int]:
    """Chips that send to `chip` and are one hop nearer to the source of `row`."""
    return [sender for sender in reach.senders[chip] if row[sender] == row[chip] - 1]


def _relative(some: Iterable[int], source: int, chips: int) -> list[int]:
    """Chips in order of their number counted from the source's."""
    return sorted(some, key=lambda chip: (chip - source) % chips)


def _mix(salt: int, number: int) -> int:
    """A fixed scrambling of two small numbers to 32 bits, so that ties fall evenly over salts."""
    x = (salt * 0x9E3779B1 + number * 0x85EBCA77 + 1) & 0xFFFFFFFF
    x = ((x ^ x >> 15) * 0x2C1B3C6D) & 0xFFFFFFFF
    x = ((x ^ x >> 12) * 0x297A2D39) & 0xFFFFFFFF
    return x ^ x >> 15


def _reach(rack: Rack) -> _Reach:
    if rack not in _reaches:
        _reaches[rack] = _Reach(rack)
    return _reaches[rack]


def _breadth_first(rack: Rack) -> Int[np.ndarray, "chips chips"]:
    """Hop counts by breadth-first search from all chips at once."""
    chips, links = rack.chips, rack.links
    out = np.zeros((chips, chips), np.int64)
    if chips == 1:
        return out
    order = np.lexsort(
        (links.a, links.b)
    )  # links sorted by receiver; every chip has one, the rack is connected
    senders, starts = links.a[order], np.searchsorted(links.b[order], np.arange(chips))
    reached = np.eye(chips, dtype=bool)  # [chip, source]
    while not reached.all():
        out += ~reached.T
        reached |= np.logical_or.reduceat(reached[senders], starts, axis=0)
    return out
