"""Routes: the tree of links over which one chip's lines reach the chips that need them.

Routes are asked for while a block is lowered, in ranks of the group; every question is kept, so that a block
lowered for one group of chips can be reused for another whose answers are the same, link for link.
"""

from dataclasses import dataclass

from compiler.errors import RoutingError
from fabric.multicast import detour_trees, multicast_tree
from fabric.rack import Rack


@dataclass(frozen=True, slots=True)
class Edge:
    """One link of a route between two ranks."""

    parent: int
    child: int
    lanes: int
    hop_cycles: int
    slot_cycles: int


class Router:
    """Routes of one group of chips; ranks beyond the group are named as they are first met."""

    def __init__(self, rack: Rack, chips: tuple[int, ...]) -> None:
        self.rack = rack
        self.chips = list(chips)
        self._rank = {chip: rank for rank, chip in enumerate(chips)}
        self.answers: dict[tuple[int, tuple[int, ...]], tuple[Edge, ...]] = {}
        self._links: dict[tuple[int, int], Edge] = {}
        self.others: dict[tuple[int, tuple[int, ...]], tuple[tuple[Edge, ...], ...]] = {}

    def tree(self, source: int, targets: tuple[int, ...]) -> tuple[Edge, ...]:
        """Links from rank `source` to ranks `targets`, parents before children."""
        key = (source, targets)
        if key not in self.answers:
            self.answers[key] = self._tree(source, targets)
        return self.answers[key]

    def detours(self, source: int, targets: tuple[int, ...]) -> tuple[tuple[Edge, ...], ...]:
        """Other trees from `source` to `targets`, each by way of another chip, nearest first."""
        key = (source, targets)
        if key not in self.others:
            chips = [self.chips[rank] for rank in targets]
            found = detour_trees(self.rack, self.chips[source], chips, salt=source)
            self.others[key] = tuple(self._edges(tree) for tree in found)
        return self.others[key]

    def _tree(self, source: int, targets: tuple[int, ...]) -> tuple[Edge, ...]:
        try:
            pairs = multicast_tree(
                self.rack, self.chips[source], [self.chips[rank] for rank in targets], salt=source
            )
        except ValueError as error:
            raise RoutingError(
                "route",
                f"chip {self.chips[source]}",
                str(error),
                "Add links to the rack or choose other chips.",
            ) from error
        return self._edges(pairs)

    def _edges(self, pairs: list[tuple[int, int]]) -> tuple[Edge, ...]:
        """Links between chips, in ranks."""
        return tuple(self.link(self._name(parent), self._name(child)) for parent, child in pairs)

    def _name(self, chip: int) -> int:
        if chip not in self._rank:
            self._rank[chip] = len(self.chips)
            self.chips.append(chip)
        return self._rank[chip]

    def same_as(self, other: "Router") -> bool:
        """Whether every route that `other` gave is the same here, so that its schedule holds here too."""
        same = all(self.tree(*question) == answer for question, answer in other.answers.items())
        return same and all(self.detours(*question) == answer for question, answer in other.others.items())

    def link(self, a: int, b: int) -> Edge:
        """The link between two ranks that a route uses."""
        if (a, b) not in self._links:
            index = self.rack.link(self.chips[a], self.chips[b])
            numbers = (self.rack.links.lanes, self.rack.links.hop_cycles, self.rack.links.slot_cycles)
            self._links[a, b] = Edge(a, b, *(int(column[index]) for column in numbers))
        return self._links[a, b]
