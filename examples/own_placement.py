"""A placement strategy of your own: lpu compare MODEL --strategies examples.own_placement:place."""

import numpy as np

from compiler.place.cost import CostModel
from compiler.place.problem import Placement, Shards
from fabric.rack import Rack


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """Random search: blocks in order on neighbouring chips, cut at random places; the best one that fits."""
    random = np.random.Generator(np.random.PCG64(seed))
    groups = rack.chips // shards.tp
    tables = cost.tables(tuple(tuple(range(g * shards.tp, (g + 1) * shards.tp)) for g in range(groups)))
    best, lowest = [0] * len(shards), None
    for _ in range(budget):
        at = np.sort(random.integers(0, groups, len(shards))).tolist()
        if tables.fits(at):
            value = tables.value(at)
            cost.note(value)
            if lowest is None or value < lowest:
                best, lowest = at, value
    return tables.placement(best)
