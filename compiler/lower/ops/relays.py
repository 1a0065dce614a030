"""Sums that several of those who have their parts add up, each for the readers near it: a hop less."""

import numpy as np
from jaxtyping import Bool, Int

from compiler.lower.collective import Move
from compiler.lower.context import Lowering, nearest
from fabric.paths import hops


def relays(
    low: Lowering,
    rank: Int[np.ndarray, "tiles parts"],
    owner: Int[np.ndarray, " lines"],
    need: Bool[np.ndarray, "ranks lines"],
    tiles: tuple[Int[np.ndarray, " tiles"], Int[np.ndarray, " tiles"]],
) -> tuple[Int[np.ndarray, " lines"], Bool[np.ndarray, "group lines"]] | None:
    """(the first of those who add up each line, all of them); None if readers are no nearer to them.

    Of those that multiply a column tile few: as near to all readers as can be; of equals column tiles take
    different ones in turn. need: who reads each line, tiles: first line and lines of each column tile.
    """
    first, count = tiles
    readers, chips = need[:, first], np.array(low.router.chips)
    if not np.array_equal(np.repeat(readers, count, axis=1), need):
        return None  # some chip reads a part of a column tile
    distance, closer = hops(low.router.rack), False
    adding, ahead = np.zeros((low.group.ranks, len(owner)), bool), np.empty_like(owner)
    for tile, (begin, lines) in enumerate(zip(first, count, strict=True)):
        makers, targets = np.unique(rank[tile]), chips[np.flatnonzero(readers[:, tile])]
        if not len(targets):
            return None
        far = distance[np.ix_(chips[makers], targets)]
        closer |= bool(far.min(axis=0).max() < distance[chips[owner[begin]], targets].max())
        mine = makers[_cover(far, tile)]
        adding[mine, begin : begin + lines] = True
        ahead[begin : begin + lines] = mine[0]
    return (ahead, adding) if closer else None


def _cover(far: Int[np.ndarray, "makers targets"], turn: int) -> list[int]:
    """Few makers, one as near to each target as the farthest target can have it; of equals by turn.

    Those that are the nearest to no target are left out.
    """
    near, out = far <= far.min(axis=0).max(), list[int]()
    left = np.ones(far.shape[1], bool)
    while left.any():
        count = (near & left).sum(axis=1)
        best = np.flatnonzero(count == count.max())
        out.append(int(best[turn % len(best)]))
        left &= ~near[out[-1]]
    used: list[int] = []
    while used != out:
        used, out = out, [out[0], *sorted(out[1:])]
        out = [out[i] for i in np.unique(far[out].argmin(axis=0))]
    return out


def from_nearest(
    low: Lowering,
    makers: Bool[np.ndarray, "group lines"],
    owner: Int[np.ndarray, " lines"],
    need: Bool[np.ndarray, "ranks lines"],
    rows: int,
) -> list[Move]:
    """Words of each line from the makers of it to the ranks that need it, each from the nearest."""
    words: dict[tuple[int, tuple[int, ...]], int] = {}
    for line in range(need.shape[1]):
        some, targets = np.flatnonzero(makers[:, line]), np.flatnonzero(need[:, line])
        near = nearest(low.router, some, targets, int(owner[line]))
        for source in np.unique(near).tolist():
            there = tuple(rank for rank in targets[near == source].tolist() if rank != source)
            words[source, there] = words.get((source, there), 0) + rows
    return [(source, targets, count) for (source, targets), count in words.items()]
