"""Near: an order of the chips of an irregular rack in which neighbours, pairs, fours, ... are close together.

Programs take chips from the front, in groups of any power of two; so the closest come first.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Distance = Int[np.ndarray, "chips chips"]
WORK = 50_000_000  # distances that are looked at while chips are exchanged
STARTS = 32
TRIES = 4000


def near_order(distance: Distance) -> list[int]:
    """The chips in such an order. The same distances give the same order."""
    chips = len(distance)
    most = WORK // chips**2
    central = np.argsort(distance.sum(axis=1), kind="stable")[: max(1, min(STARTS, most // 8))].tolist()
    best = min((_grown(distance, first) for first in central), key=lambda order: _cost(distance, order))
    cost, tries, better = _cost(distance, best), 0, True
    while better:
        better = False
        for i in range(chips):
            for j in range(i + 1, chips):
                tries += 1
                if tries > min(TRIES, most):
                    return best
                other = list(best)
                other[i], other[j] = other[j], other[i]
                if (now := _cost(distance, other)) < cost:
                    best, cost, better = other, now, True
    return best


def _grown(distance: Distance, first: int) -> list[int]:
    """From a chip on, always the one nearest to the chip before it and to the blocks that it joins."""
    chips = len(distance)
    order, left = [first], np.ones(chips, bool)
    left[first] = False
    sums = {2**i: distance[first].astype(np.float64) for i in range(1, chips.bit_length())}
    while len(order) < chips:
        at, far = len(order), distance[order[-1]].astype(np.float64)
        for size, total in sums.items():
            if at % size:
                far = far + total / (at % size)
        order.append(int(np.argmin(np.where(left, far, np.inf))))
        left[order[-1]] = False
        for size, total in sums.items():
            sums[size] = distance[order[-1]] + (total if at % size else 0.0)
    return order


def _cost(distance: Distance, order: Sequence[int]) -> int:
    """How far apart blocks of 1, 2, 4, ... chips are inside and from the block after them, the first most."""
    chips, total = len(order), 0
    inside = distance[np.ix_(order, order)]
    size = 1
    while size < chips:
        begins = np.arange(0, chips, size)
        count = np.diff(np.append(begins, chips))
        sums = np.add.reduceat(np.add.reduceat(inside, begins, axis=0), begins, axis=1)
        mean = 1024 * sums // (count[:, None] * count)
        weight = 1 + 3 // (1 + np.arange(len(begins)))
        total += int((np.diag(mean) * weight).sum() + (np.diag(mean, 1) * weight[1:]).sum())
        size *= 2
    return total + 1024 * int(inside.sum()) // chips**2
