"""Round robin: chips are dealt to the groups one by one."""

from compiler.place.cost import CostModel
from compiler.place.groups import fill
from compiler.place.problem import Placement, Shards
from fabric.rack import Rack


def groups(rack: Rack, size: int, count: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Group g takes chips g, g + count, g + 2 count, ..."""
    return tuple(tuple(range(g, size * count, count)) for g in range(count))


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """Blocks fill those groups in order."""
    found = fill(shards, rack, groups(rack, shards.tp, rack.chips // shards.tp, seed))
    cost.note(cost.estimate(found).value)
    return found
