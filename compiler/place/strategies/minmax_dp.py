"""Min-max DP: runs of blocks whose busiest group is as little busy as runs can make it."""

from compiler.place.cost import CostModel
from compiler.place.groups import tables_of
from compiler.place.problem import Placement, Shards
from compiler.place.segments import chain_only, fastest, least_period
from fabric.rack import Rack


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """The least period that runs have, and the least latency that has this period; raises CapacityError."""
    tables = tables_of(cost)
    chain_only(tables, "minmax-dp")
    walk = tables.order()
    at = fastest(tables, walk, least_period(tables, walk))
    assert at is not None, "least_period found runs"
    cost.note(tables.value(at))
    return tables.placement(at)
