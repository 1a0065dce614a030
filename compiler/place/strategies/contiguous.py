"""Contiguous: chips in number order, so that a group is a tray or a run of trays."""

from compiler.place.cost import CostModel
from compiler.place.groups import contiguous, fill
from compiler.place.problem import Placement, Shards
from fabric.rack import Rack


def groups(rack: Rack, size: int, count: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Groups of `size` neighbouring chips."""
    return contiguous(rack, size)[:count]


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """Blocks fill those groups in order."""
    found = fill(shards, rack, groups(rack, shards.tp, rack.chips // shards.tp, seed))
    cost.note(cost.estimate(found).value)
    return found
