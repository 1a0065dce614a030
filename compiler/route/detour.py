"""Detours: a large transfer dealt over several trees of links, so that they finish together.

The shortest path between two trays has 2 links of 4 lanes; the rack has 30 more trays to go round by. A hop
more costs a fixed time, a narrow link one that grows with the words. Source: facts scheduling.md section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.program.isa import ceil_div
from compiler.route.route import Edge, Router

Tree = tuple[Edge, ...]
MOST_STEPS = 1 << 17  # of lines times trees: larger exchanges keep to the shortest trees, to compile in time


@dataclass(frozen=True, slots=True)
class Send:
    """Lines that go from rank `source` to ranks `targets`: `lines` of them, at most `whole` by one row."""

    source: int
    targets: tuple[int, ...]
    lines: int
    whole: int


class _Load:
    """Words on every link so far, and the time that they take."""

    def __init__(self, forward: int) -> None:
        self.forward = forward
        self.words: dict[tuple[int, int], int] = {}

    def add(self, tree: Tree, words: int) -> None:
        for edge in tree:
            pair = edge.parent, edge.child
            self.words[pair] = self.words.get(pair, 0) + words

    def fullest(self, tree: Tree, more: int = 0) -> int:
        """Cycles of the fullest link of a tree, with this many words more."""
        words = self.words
        return max(
            int(ceil_div(words.get((e.parent, e.child), 0) + more, e.lanes)) * e.slot_cycles for e in tree
        )

    def latency(self, tree: Tree, words: int) -> int:
        """Cycles until the farthest rank has a message of this many words, sent alone."""
        arrival: dict[int, int] = {tree[0].parent: 0}
        for edge in tree:
            again = self.forward if edge.parent != tree[0].parent else 0
            slots = int(ceil_div(words, edge.lanes)) * edge.slot_cycles
            arrival[edge.child] = arrival[edge.parent] + edge.hop_cycles + again + slots
        return max(arrival.values())


def deal(router: Router, sends: Sequence[Send], batch: int, turn: int = 0) -> list[list[Tree]] | None:
    """A tree for every line of every send, or None if the shortest trees are estimated to be as fast.

    The estimate of a tree: its latency for one line, and the slots of the fullest of its links, on which the
    lines of all other sends count too. Lines are dealt one by one, send by send, each to the tree that
    finishes first with it; so trees in use finish at nearly the same time. turn: of the shortest trees.
    """
    load = _Load(router.rack.forward_cycles)
    shortest = [router.tree(send.source, send.targets, turn) for send in sends]
    for send, tree in zip(sends, shortest, strict=True):
        load.add(tree, send.lines * batch)
    full = [load.fullest(tree) for tree in shortest]
    extra = [min(edge.hop_cycles for edge in tree) + load.forward for tree in shortest]
    hot = [i for i in range(len(sends)) if full[i] > 2 * extra[i]]
    before = [
        load.latency(tree, s.whole * batch) + f for s, tree, f in zip(sends, shortest, full, strict=True)
    ]
    if not hot:
        return None
    trees = {i: (shortest[i], *router.detours(sends[i].source, sends[i].targets)) for i in hot}
    if sum(sends[i].lines * len(trees[i]) for i in hot) > MOST_STEPS:
        return None
    load.words.clear()
    for i, send in enumerate(sends):
        if i not in trees:
            load.add(shortest[i], send.lines * batch)
    late = {i: [load.latency(tree, batch) for tree in trees[i]] for i in hot}
    out: list[list[Tree]] = [[] if i in trees else [shortest[i]] * send.lines for i, send in enumerate(sends)]
    for turn in range(max(sends[i].lines for i in hot)):
        for i in hot:
            if turn < sends[i].lines:
                finish = [late[i][j] + load.fullest(tree, batch) for j, tree in enumerate(trees[i])]
                best = trees[i][finish.index(min(finish))]
                load.add(best, batch)
                out[i].append(best)
    after = max(load.latency(tree, batch) + load.fullest(tree) for i in hot for tree in set(out[i]))
    return out if after < max(before[i] for i in hot) else None
