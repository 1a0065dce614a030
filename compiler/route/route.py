"""Routes: the tree of links over which one chip's lines reach the chips that need them.

Routes are asked for while a block is lowered, in ranks of the group; every question is kept, so that a block
lowered for one group of chips can be reused for another whose answers are the same, link for link.
"""

from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int

from compiler.errors import RoutingError
from fabric.multicast import detour_trees, multicast_tree
from fabric.rack import Rack

Pairs = Int[np.ndarray, "links 2"]  # parent and child of each link of a tree, in chips


@dataclass(frozen=True, slots=True)
class Edge:
    """One link of a route between two ranks."""

    parent: int
    child: int
    lanes: int
    hop_cycles: int
    slot_cycles: int


class RouteQuestion(NamedTuple):
    """What was asked of a router, in ranks: the shortest tree, or the trees that go round.

    turn: see `multicast_tree`.
    """

    source: int
    targets: tuple[int, ...]
    detours: bool
    turn: int = 0


TreeKey = tuple[bool, int, tuple[int, ...], int, bool, int]
_trees: "WeakKeyDictionary[Rack, dict[TreeKey, list[Pairs]]]" = WeakKeyDictionary()


class Trees:
    """The trees of one rack, in chips, each found once and kept as long as the rack.

    thrifty: see `multicast_tree`.
    """

    def __init__(self, rack: Rack, thrifty: bool = False) -> None:
        self.rack, self._thrifty = rack, thrifty
        self._found = _trees.setdefault(rack, {})

    def answers(self, chips: list[int], question: RouteQuestion) -> list[Pairs]:
        """The trees that a question asks for where its ranks are these chips. Raises RoutingError."""
        source, targets = chips[question.source], tuple(chips[rank] for rank in question.targets)
        key = (self._thrifty, source, targets, question.source, question.detours, question.turn)
        if key not in self._found:
            if question.detours:
                found = detour_trees(self.rack, source, targets, salt=question.source)
            else:
                found = [_shortest(self.rack, source, targets, question, self._thrifty)]
            self._found[key] = [np.array(tree, np.int32).reshape(-1, 2) for tree in found]
        return self._found[key]


def _shortest(
    rack: Rack, source: int, targets: tuple[int, ...], question: RouteQuestion, thrifty: bool
) -> list[tuple[int, int]]:
    try:
        salt, turn = question.source, question.turn
        return multicast_tree(rack, source, targets, salt, thrifty=thrifty, turn=turn)
    except ValueError as error:
        remedy = "Add links to the rack or choose other chips."
        raise RoutingError("route", f"chip {source}", str(error), remedy) from error


class Router:
    """Routes of one group of chips; ranks beyond the group are named as they are first met."""

    def __init__(self, rack: Rack, chips: tuple[int, ...], trees: Trees | None = None) -> None:
        self.rack = rack
        self.chips = list(chips)
        self.trees = trees or Trees(rack)
        self._rank = {chip: rank for rank, chip in enumerate(chips)}
        self._links: dict[tuple[int, int], Edge] = {}
        self.answers: dict[RouteQuestion, tuple[tuple[Edge, ...], ...]] = {}

    def copy(self) -> "Router":
        """Another router that has answered the same so far."""
        other = Router(self.rack, tuple(self.chips), self.trees)
        other._links, other.answers = dict(self._links), dict(self.answers)
        return other

    def tree(self, source: int, targets: tuple[int, ...], turn: int = 0) -> tuple[Edge, ...]:
        """Links from rank `source` to ranks `targets`, parents before children."""
        return self._answer(RouteQuestion(source, targets, False, turn))[0]

    def detours(self, source: int, targets: tuple[int, ...]) -> tuple[tuple[Edge, ...], ...]:
        """Other trees from `source` to `targets`, each by way of another chip, nearest first."""
        return self._answer(RouteQuestion(source, targets, True))

    def _answer(self, question: RouteQuestion) -> tuple[tuple[Edge, ...], ...]:
        if question not in self.answers:
            found = self.trees.answers(self.chips, question)
            self.answers[question] = tuple(
                tuple(self.link(self._name(parent), self._name(child)) for parent, child in tree.tolist())
                for tree in found
            )
        return self.answers[question]

    def _name(self, chip: int) -> int:
        if chip not in self._rank:
            self._rank[chip] = len(self.chips)
            self.chips.append(chip)
        return self._rank[chip]

    def link(self, a: int, b: int) -> Edge:
        """The link between two ranks that a route uses."""
        if (a, b) not in self._links:
            index = self.rack.link(self.chips[a], self.chips[b])
            numbers = (self.rack.links.lanes, self.rack.links.hop_cycles, self.rack.links.slot_cycles)
            self._links[a, b] = Edge(a, b, *(int(column[index]) for column in numbers))
        return self._links[a, b]
