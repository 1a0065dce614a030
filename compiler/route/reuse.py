"""What was made for one group of chips, found again for another group whose routes are the same."""

from collections.abc import Hashable

import numpy as np

from compiler.route.route import Pairs, RouteQuestion, Router, Trees
from fabric.rack import Rack

Questions = tuple[RouteQuestion, ...]


class Reuse:
    """Numbers of things made so far, looked up by what they are and by the routes that they take.

    thrifty: how trees are found, see `fabric.multicast.multicast_tree`.
    """

    def __init__(self, rack: Rack, thrifty: bool = False) -> None:
        self._trees = Trees(rack, thrifty)
        self._known: dict[Hashable, dict[Questions, dict[bytes, int]]] = {}

    def router(self, chips: tuple[int, ...]) -> Router:
        """A router of these chips, which finds no tree a second time."""
        return Router(self._trees.rack, chips, self._trees)

    def add(self, key: Hashable, router: Router, number: int) -> None:
        """Keep the number of what was made with a router; `key`: all else that it depends on."""
        questions = tuple(router.answers)
        routes, _ = self._routes(tuple(router.chips), questions)
        self._known.setdefault(key, {}).setdefault(questions, {}).setdefault(routes, number)

    def find(self, key: Hashable, chips: tuple[int, ...]) -> tuple[int, tuple[int, ...]] | None:
        """The first thing of that key that takes, on these chips, the routes for which it was made.

        Its number, and the chips by rank: those given, then others in the order in which routes meet them.
        """
        found: list[tuple[int, tuple[int, ...]]] = []
        for questions, numbers in self._known.get(key, {}).items():
            routes, named = self._routes(chips, questions)
            if routes in numbers:
                found.append((numbers[routes], named))
        return min(found, default=None)

    def _routes(self, chips: tuple[int, ...], questions: Questions) -> tuple[bytes, tuple[int, ...]]:
        """All answers to the questions, link by link with its numbers, in ranks; the chips by rank."""
        given = list(chips)
        trees = [tree for question in questions for tree in self._trees.answers(given, question)]
        pairs: Pairs = np.concatenate(trees) if trees else np.zeros((0, 2), np.int32)
        rank, named = _ranks(pairs, chips, self._trees.rack.chips)
        links = self._trees.rack.links
        at = links.index[pairs[:, 0], pairs[:, 1]]
        numbers = [links.lanes[at], links.hop_cycles[at], links.slot_cycles[at]]
        sizes = np.array([len(tree) for tree in trees], np.int64)
        return b"".join(part.tobytes() for part in (sizes, rank[pairs], *numbers)), named


def _ranks(pairs: Pairs, chips: tuple[int, ...], count: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The rank of every chip of the rack that is met, and the chips by rank."""
    met, first = np.unique(np.concatenate([np.array(chips, np.int32), pairs.reshape(-1)]), return_index=True)
    named = met[np.argsort(first)]
    rank = np.full(count, -1, np.int32)
    rank[named] = np.arange(len(named))
    return rank, tuple(named.tolist())
