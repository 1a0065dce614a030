"""Spectral: shards in the order of the Fiedler vector of the traffic graph, chips filled one after another.

It keeps much of the traffic inside chips, and so puts the shards of a block on the same few chips, which then
take their turns: the cut is small and the step is long.
Source: Fiedler 1973. The shards of a block are alike, so the vector is that of the graph of blocks.
"""

import numpy as np

from compiler.errors import LESS_KV, CapacityError
from compiler.place.cost import CostModel
from compiler.place.problem import Placement, Shards, words_by_chip
from fabric.rack import Rack

DIGITS = 9  # entries that agree so far are equal: the rest is rounding


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """Each shard on the chip of the one before it while it has room; raises CapacityError."""
    placement = np.zeros((len(shards), shards.tp), np.int64)
    chip = used = 0
    for block in order(shards):
        words = shards.need(shards.kinds[block], shards.tp).words
        for rank in range(shards.tp):
            if used + words[rank] > shards.room:
                chip, used = chip + 1, 0
            if chip >= rack.chips:
                raise CapacityError(
                    "place",
                    "spectral",
                    f"fills {rack.chips} chips before block {shards.names[block]}",
                    f"Use a larger rack{LESS_KV}.",
                )
            placement[block, rank] = chip
            used += words[rank]
    _lighter(shards, rack, placement)
    cost.note(cost.estimate(placement).value)
    return placement


def order(shards: Shards) -> list[int]:
    """Blocks by the eigenvector of the second smallest eigenvalue of their traffic's Laplacian."""
    count = len(shards)
    traffic = np.zeros((count, count))
    for i, reads in enumerate(shards.before):
        for before in reads:
            need = shards.need(shards.kinds[before], shards.tp)
            traffic[i, before] = traffic[before, i] = need.handed * need.sources * shards.tp
    if count < 3:
        return list(range(count))
    _, vectors = np.linalg.eigh(np.diag(traffic.sum(axis=1)) - traffic)
    fiedler = np.round(vectors[:, 1] / np.abs(vectors[:, 1]).max(), DIGITS)
    fiedler = fiedler * (1 if fiedler[0] <= 0 else -1)
    return np.lexsort((np.arange(count), fiedler)).tolist()


def _lighter(shards: Shards, rack: Rack, placement: Placement) -> None:
    """Blocks on fewer chips than shards pad differently: what is over capacity goes elsewhere by shards."""
    used = words_by_chip(shards, placement, rack.chips)
    for _ in range(placement.size):
        worst = int(np.argmax(used))
        if used[worst] <= shards.room:
            return
        block, rank = np.argwhere(placement == worst)[-1]
        placement[block, rank] = int(np.argmin(used))
        used = words_by_chip(shards, placement, rack.chips)
