"""The paths that a message may take: fewest hops, then fewest cycles, ties by a salt, nothing by chance."""

from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int

from fabric.rack import Rack

WORDS = 32  # length of the message whose cycles decide between paths of equally many hops: 10 kB


class Senders:
    """For one source: the senders to each chip on a best path, by chip number relative to the source.

    Found when a chip is asked for, over the chips on its paths only: a group of chips asks for few.
    """

    def __init__(
        self, source: int, distance: list[int], links_to: list[dict[int, int]], turns: list[int]
    ) -> None:
        self._source = source
        self._distance, self._links_to, self._turns = distance, links_to, turns
        self._best = {source: 0}  # cycles
        self._found: dict[int, list[int]] = {source: []}

    def __getitem__(self, chip: int) -> list[int]:
        if chip not in self._found:
            self._find(chip)
        return self._found[chip]

    def _find(self, chip: int) -> None:
        layers, layer = list[dict[int, dict[int, int]]](), [chip]
        while layer:
            layers.append({b: self._nearer(b) for b in layer})
            layer = list({a: None for near in layers[-1].values() for a in near if a not in self._found})
        for b, near in (item for layer in reversed(layers) for item in layer.items()):
            cycles = {a: self._best[a] + link for a, link in near.items()}
            self._best[b] = least = min(cycles.values())
            self._found[b] = sorted((a for a in cycles if cycles[a] == least), key=self._turns.__getitem__)

    def _nearer(self, b: int) -> dict[int, int]:
        """The chips one link nearer to the source that have a link to `b`, and its cycles."""
        near, links = self._distance[b] - 1, self._links_to[b]
        if not near:
            return {self._source: links[self._source]}
        return {a: link for a, link in links.items() if self._distance[a] == near}


class Reach:
    """Cache of one rack: hop counts, and for each source asked for the senders nearer to it."""

    def __init__(self, rack: Rack) -> None:
        self.hops = _breadth_first(rack)
        self.hops.flags.writeable = False
        links = rack.links
        cycles = links.hop_cycles - (-WORDS // links.lanes) * links.slot_cycles
        self._links_to: list[dict[int, int]] = [{} for _ in range(rack.chips)]
        for a, b, link in zip(links.a.tolist(), links.b.tolist(), cycles.tolist(), strict=True):
            self._links_to[b][a] = link
        self._before: dict[int, Senders] = {}
        farthest = self.hops.max(axis=1)
        self._around = rack.chips if (farthest == farthest[0]).all() else 0

    def turns(self, source: int) -> Int[np.ndarray, " chips"]:
        """The order in which `source` counts the other chips: what decides between equally good ways.

        It counts around, so that equal groups get equal trees. On a rack with a middle and an edge, as a mesh
        has, it counts up and down: more chips behind an edge then change no way.
        """
        away = np.arange(len(self.hops)) - source
        return away % self._around if self._around else away

    def before(self, source: int) -> Senders:
        """For each chip the senders on a best path from `source`."""
        if source not in self._before:
            distance, turns = self.hops[source].tolist(), self.turns(source).tolist()
            self._before[source] = Senders(source, distance, self._links_to, turns)
        return self._before[source]


_reaches: "WeakKeyDictionary[Rack, Reach]" = WeakKeyDictionary()


def hops(rack: Rack) -> Int[np.ndarray, "chips chips"]:
    """The fewest links between every pair of chips; read-only, computed once per rack."""
    return reach(rack).hops


def shortest_path(rack: Rack, a: int, b: int, salt: int = 0) -> tuple[int, ...]:
    """Chips from `a` to `b`, both included, over the fewest links and, among those, the fastest.

    Among equally good paths `salt` chooses: 0, 1, 2 ... run through all of them.
    """
    before = reach(rack).before(a)
    path = [b]
    while path[-1] != a:
        senders = before[path[-1]]
        salt, choice = divmod(salt, len(senders))
        path.append(senders[choice])
    return tuple(reversed(path))


def reach(rack: Rack) -> Reach:
    """The paths of a rack, found as they are asked for and kept as long as the rack."""
    if rack not in _reaches:
        _reaches[rack] = Reach(rack)
    return _reaches[rack]


def _breadth_first(rack: Rack) -> Int[np.ndarray, "chips chips"]:
    """Hop counts by breadth-first search from all chips at once, 64 sources in each machine word."""
    chips, links = rack.chips, rack.links
    missing = np.zeros((chips, chips), np.int16)  # [chip, source]: rounds in which it was not yet reached
    if chips == 1:
        return missing.astype(np.int64)
    order = np.lexsort((links.a, links.b))  # links by receiver; every chip has one, the rack is connected
    senders, starts = links.a[order], np.searchsorted(links.b[order], np.arange(chips))
    if len(np.unique(links.b)) < chips or (
        rack.damage and rack.damage.lost and rack.chips == rack.damage.whole.chips
    ):
        raise ValueError(f"rack {rack.name}: chips are lost, paths are those of the rack of living chips")
    own = np.eye(chips, dtype=bool)
    packed = np.packbits(np.pad(own, ((0, 0), (0, -chips % 64))), axis=1, bitorder="little")
    reached = packed.view(np.uint64)
    while True:
        bits = np.unpackbits(reached.view(np.uint8), axis=1, count=chips, bitorder="little")
        if bits.all():
            return missing.T.astype(np.int64)
        missing += bits == 0
        reached = reached | np.bitwise_or.reduceat(reached[senders], starts, axis=0)
