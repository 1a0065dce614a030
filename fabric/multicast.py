"""Multicast: the tree of links over which one message reaches many chips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from fabric.paths import reach, shortest_path
from fabric.rack import Rack

Tree = list[tuple[int, int]]  # links (parent, child), parents before children


def multicast_tree(
    rack: Rack, source: int, targets: Sequence[int], salt: int = 0, *, thrifty: bool = False, turn: int = 0
) -> Tree:
    """Links (parent, child) that take a message from `source` to all `targets`, parents before children.

    No target is more links away than the farthest is by `shortest_path`. Among such trees the one of the
    fewest links is sought: chips far from the source are entered by one of them, a door, that hands on to
    the others where that makes none of them the farthest. So a tray is entered once, by whatever levels
    or links it is one. Ties by `salt`; chip numbers count relative to the source only, so that equal
    groups of a symmetric rack get equal trees. thrifty: of trees of equally many links the one that takes
    least of their lanes: trays are entered once, too, where all chips on the way are targets. turn: messages
    of one source that count up pass by each of the chips that serve a target equally well in turn.
    """
    shortest = shortest_tree(rack, source, targets, salt, turn)
    wanted = set(targets) - {source}
    direct = all(parent == source for parent, _ in shortest)
    if len(shortest) == len(wanted) and (direct or not thrifty):
        return shortest
    tree = _by_doors(rack, source, sorted(wanted), salt, turn)
    if not tree or len(tree) > len(shortest):
        return shortest
    less = thrifty and _lane_time(rack, tree) < _lane_time(rack, shortest)
    return tree if less or len(tree) < len(shortest) else shortest


def _lane_time(rack: Rack, tree: Tree) -> Fraction:
    """Cycles of a word on each link, its lanes sharing it, of all links together."""
    at = [rack.link(parent, child) for parent, child in tree]
    slots, lanes = rack.links.slot_cycles, rack.links.lanes
    return sum((Fraction(int(slots[i]), int(lanes[i])) for i in at), Fraction())


def shortest_tree(rack: Rack, source: int, targets: Sequence[int], salt: int = 0, turn: int = 0) -> Tree:
    """The tree in which every target is reached over a path as good as `shortest_path`.

    A parent is, in this order of preference: a target itself; the chip that could serve most children; the
    choice of `salt`, or of those that could serve as many the one whose `turn` it is after that.
    """
    paths = reach(rack)
    before, distance, turns = paths.before(source), paths.hops[source], paths.turns(source)
    layers: dict[int, dict[int, None]] = {}
    for target in targets:
        layers.setdefault(int(distance[target]), {})[target] = None
    edges: Tree = []
    for depth in range(max(layers, default=0), 0, -1):
        children = sorted(layers[depth], key=lambda chip: int(turns[chip]))
        nearer = layers.setdefault(depth - 1, {})
        parents = _parents([before[child] for child in children], nearer, turns, salt, turn)
        nearer.update(dict.fromkeys(parents))
        edges[:0] = zip(parents, children, strict=True)
    return edges


def detour_trees(
    rack: Rack, source: int, targets: Sequence[int], salt: int = 0, most: int = 16
) -> list[Tree]:
    """Multicast trees that each pass through a different chip next to a target; at most `most` of them.

    Nearest chips first, then by their number relative to the source. No tree meets a chip twice.
    """
    distance, turns = reach(rack).hops[source], reach(rack).turns(source)
    ends = {int(chip) for target in targets for chip in rack.neighbours(target)} - {source, *targets}
    order = sorted(ends, key=lambda chip: (int(distance[chip]), int(turns[chip])))
    shortest, wanted = multicast_tree(rack, source, targets, salt), set(targets) - {source}
    out: list[Tree] = []
    for via in order:
        path = shortest_path(rack, source, via, salt)
        if not wanted.isdisjoint(path):  # the tree from `via` would come to that target once more
            continue
        tree = [*pairwise(path), *multicast_tree(rack, via, targets, salt)]
        children = [child for _, child in tree]
        if source not in children and len(set(children)) == len(children) and tree != shortest:
            out.append(tree)
        if len(out) == most:
            break
    return out


def _by_doors(rack: Rack, source: int, targets: list[int], salt: int, turn: int) -> Tree | None:
    """A tree that enters groups of far targets by one of them each; None if one chip would be met twice.

    A door serves the far targets that are no farther through it than the farthest of all. Doors that serve
    most come first, then the nearest, then by salt.
    """
    hops, turns = reach(rack).hops, reach(rack).turns(source)
    near = [t for t in targets if hops[source, t] == 1]
    far = np.array(sorted(set(targets) - set(near), key=lambda chip: int(turns[chip])))
    away = hops[source, far]
    serves = away[:, None] + hops[np.ix_(far, far)] <= away.max()
    left, doors = np.ones(len(far), bool), list[tuple[int, list[int]]]()
    while left.any():
        count = (serves & left).sum(axis=1) * left
        best = np.flatnonzero(count == count.max())
        best = best[away[best] == away[best].min()]
        door = int(best[(salt + turn) % len(best)])
        served = np.flatnonzero(serves[door] & left)
        doors.append((int(far[door]), far[served[served != door]].tolist()))
        left[served] = False
        left[door] = False
    tree = shortest_tree(rack, source, [*near, *(door for door, _ in doors)], salt, turn)
    for door, others in doors:
        tree += shortest_tree(rack, door, others, salt, turn)
    children = [child for _, child in tree]
    return tree if source not in children and len(set(children)) == len(children) else None


def _parents(
    before: list[list[int]], ready: Mapping[int, None], turns: Int[np.ndarray, " chips"], salt: int, turn: int
) -> list[int]:
    """One parent for each child out of its candidates `before`; `ready`: targets of their layer."""
    serves = Counter(chip for candidates in before for chip in candidates if chip not in ready)
    rank = {chip: (count, _mix(salt, int(turns[chip]))) for chip, count in serves.items()}
    parents: list[int] = []
    for child, candidates in enumerate(before):
        there = [chip for chip in candidates if chip in ready]
        if not there:
            most = max(serves[chip] for chip in candidates)
            there = sorted((c for c in candidates if serves[c] == most), key=rank.__getitem__, reverse=True)
            parents.append(there[turn % len(there)])
            continue
        parents.append(there[(salt + child + turn) % len(there)])
    return parents


def _mix(salt: int, number: int) -> int:
    """A fixed scrambling of two small numbers to 32 bits, so that ties fall evenly over salts."""
    x = (salt * 0x9E3779B1 + number * 0x85EBCA77 + 1) & 0xFFFFFFFF
    x = ((x ^ x >> 15) * 0x2C1B3C6D) & 0xFFFFFFFF
    x = ((x ^ x >> 12) * 0x297A2D39) & 0xFFFFFFFF
    return x ^ x >> 15
