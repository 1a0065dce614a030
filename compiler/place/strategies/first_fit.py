"""First fit: every block goes to the first group that has room, wherever the block before it is."""

from compiler.place.cost import CostModel
from compiler.place.groups import contiguous, first_fit
from compiler.place.problem import Placement, Shards
from fabric.rack import Rack


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """The lowest group with room, block by block; raises CapacityError."""
    tables = cost.tables(contiguous(rack, shards.tp))
    at = first_fit(tables)
    cost.note(tables.value(at))
    return tables.placement(at)
