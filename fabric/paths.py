"""The paths that a message may take: fewest hops, then fewest cycles, ties by a salt, nothing by chance."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int

from fabric.rack import Rack

WORDS = 32  # length of the message whose cycles decide between paths of equally many hops: 10 kB


class _Senders:
    """For one source: the senders to each chip on a best path, by chip number relative to the source.

    Found when a chip is asked for, over the chips on its paths only: a group of chips asks for few.
    """

    def __init__(self, source: int, distance: list[int], links_to: list[list[tuple[int, int]]]) -> None:
        self._source, self._distance, self._links_to = source, distance, links_to
        self._best = {source: 0}  # cycles
        self._found: dict[int, list[int]] = {source: []}

    def __getitem__(self, chip: int) -> list[int]:
        if chip not in self._found:
            self._find(chip)
        return self._found[chip]

    def _find(self, chip: int) -> None:
        layers, layer = list[list[int]](), [chip]
        while layer:
            layers.append(layer)
            layer = list({a: None for b in layer for a, _ in self._nearer(b) if a not in self._found})
        for b in (b for layer in reversed(layers) for b in layer):
            cycles = {a: self._best[a] + link for a, link in self._nearer(b)}
            self._best[b] = least = min(cycles.values())
            chips = len(self._distance)
            self._found[b] = sorted(
                (a for a in cycles if cycles[a] == least), key=lambda a: (a - self._source) % chips
            )

    def _nearer(self, b: int) -> list[tuple[int, int]]:
        """The links to `b` from chips that are one link nearer to the source."""
        return [(a, link) for a, link in self._links_to[b] if self._distance[a] + 1 == self._distance[b]]


class _Reach:
    """Cache of one rack: hop counts, and for each source asked for the senders nearer to it."""

    def __init__(self, rack: Rack) -> None:
        self.hops = _breadth_first(rack)
        self.hops.flags.writeable = False
        links = rack.links
        cycles = links.hop_cycles - (-WORDS // links.lanes) * links.slot_cycles
        self._links_to: list[list[tuple[int, int]]] = [[] for _ in range(rack.chips)]
        for a, b, link in zip(links.a.tolist(), links.b.tolist(), cycles.tolist(), strict=True):
            self._links_to[b].append((a, link))
        self._before: dict[int, _Senders] = {}

    def before(self, source: int) -> _Senders:
        """For each chip the senders on a best path from `source`."""
        if source not in self._before:
            self._before[source] = _Senders(source, self.hops[source].tolist(), self._links_to)
        return self._before[source]


_reaches: "WeakKeyDictionary[Rack, _Reach]" = WeakKeyDictionary()


def hops(rack: Rack) -> Int[np.ndarray, "chips chips"]:
    """The fewest links between every pair of chips; read-only, computed once per rack."""
    return _reach(rack).hops


def shortest_path(rack: Rack, a: int, b: int, salt: int = 0) -> tuple[int, ...]:
    """Chips from `a` to `b`, both included, over the fewest links and, among those, the fastest.

    Among equally good paths `salt` chooses: 0, 1, 2 ... run through all of them.
    """
    before = _reach(rack).before(a)
    path = [b]
    while path[-1] != a:
        senders = before[path[-1]]
        salt, choice = divmod(salt, len(senders))
        path.append(senders[choice])
    return tuple(reversed(path))


def multicast_tree(rack: Rack, source: int, targets: Sequence[int], salt: int = 0) -> list[tuple[int, int]]:
    """Links (parent, child) that take a message from `source` to all `targets`, parents before children.

    Every target is reached over a path as good as `shortest_path`. A parent is, in this order of preference:
    a target itself; the chip that could serve most children; the choice of `salt`. Chip numbers count
    relative to the source only, so that equal groups of a symmetric rack get equal trees.
    """
    reach = _reach(rack)
    before, distance, chips = reach.before(source), reach.hops[source], rack.chips
    layers: dict[int, dict[int, None]] = {}
    for target in targets:
        layers.setdefault(int(distance[target]), {})[target] = None
    edges: list[tuple[int, int]] = []
    for depth in range(max(layers, default=0), 0, -1):
        children = sorted(layers[depth], key=lambda chip: (chip - source) % chips)
        nearer = layers.setdefault(depth - 1, {})
        parents = _parents([before[child] for child in children], nearer, source, chips, salt)
        nearer.update(dict.fromkeys(parents))
        edges[:0] = zip(parents, children, strict=True)
    return edges


def detour_trees(
    rack: Rack, source: int, targets: Sequence[int], salt: int = 0, most: int = 16
) -> list[list[tuple[int, int]]]:
    """Multicast trees that each pass through a different chip next to a target; at most `most` of them.

    Nearest chips first, then by their number relative to the source. No tree meets a chip twice.
    """
    distance, chips = _reach(rack).hops[source], rack.chips
    ends = {int(chip) for target in targets for chip in rack.neighbours(target)} - {source, *targets}
    order = sorted(ends, key=lambda chip: (int(distance[chip]), (chip - source) % chips))
    shortest = multicast_tree(rack, source, targets, salt)
    out: list[list[tuple[int, int]]] = []
    for via in order:
        path = shortest_path(rack, source, via, salt)
        tree = [*pairwise(path), *multicast_tree(rack, via, targets, salt)]
        children = [child for _, child in tree]
        if source not in children and len(set(children)) == len(children) and tree != shortest:
            out.append(tree)
        if len(out) == most:
            break
    return out


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
