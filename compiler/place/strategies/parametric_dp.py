"""Parametric DP: runs of blocks of least latency + alpha x period, by the least latency of every period."""

from compiler.place.cost import CostModel
from compiler.place.groups import tables_of
from compiler.place.problem import Placement, Shards
from compiler.place.segments import NEVER, chain_only, fastest, least_period
from compiler.place.tables import Tables
from fabric.rack import Rack


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """The best runs along one walk over the groups; raises CapacityError."""
    tables = tables_of(cost)
    chain_only(tables, "parametric-dp")
    return tables.placement(best_runs(tables, cost, budget))


def best_runs(tables: Tables, cost: CostModel, budget: int) -> list[int]:
    """The group of each block. Every step asks for less than the last period, until no gain is left."""
    walk = tables.order()
    floor = least_period(tables, walk)
    best, value, period = [0] * len(tables.shards), NEVER, NEVER
    for _ in range(max(budget, 1)):
        at = fastest(tables, walk, period)
        if at is None:
            break
        found = tables.value(at)
        cost.note(found)
        if found < value:
            best, value = at, found
        period = tables.period(at) - 1
        if period < floor or tables.latency(at) + tables.alpha * floor >= value:
            break
    return best
