"""Random: a seeded permutation of all chips, cut into groups."""

import numpy as np

from compiler.place.cost import CostModel
from compiler.place.groups import fill
from compiler.place.problem import Placement, Shards
from fabric.rack import Rack


def groups(rack: Rack, size: int, count: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Groups of chips drawn without replacement by a PCG64 generator of that seed."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(rack.chips)
    return tuple(tuple(int(chip) for chip in order[g * size : (g + 1) * size]) for g in range(count))


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """Blocks fill those groups in order."""
    found = fill(shards, rack, groups(rack, shards.tp, rack.chips // shards.tp, seed))
    cost.note(cost.estimate(found).value)
    return found
