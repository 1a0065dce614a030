"""Groups: which `tp` chips a search keeps together, and the filling of groups in order."""

from itertools import pairwise

import numpy as np

from compiler.errors import LESS_KV, CapacityError
from compiler.place.cost import CostModel
from compiler.place.problem import Placement, Shards
from compiler.place.stages import assign, turned
from compiler.place.tables import Tables
from fabric.paths import hops
from fabric.rack import Rack


def contiguous(rack: Rack, size: int) -> tuple[tuple[int, ...], ...]:
    """Chips in number order; those that no group of whole trays finds room for in its rack come last."""
    order = [chip for chips in _units(rack, size) for chip in chips[: len(chips) // size * size]]
    order += sorted(set(range(rack.chips)).difference(order))
    return tuple(tuple(order[g * size : (g + 1) * size]) for g in range(rack.chips // size))


def _units(rack: Rack, size: int) -> tuple[tuple[int, ...], ...]:
    """The smallest groups of a level that hold `size` chips, if these are whole groups of the one inside."""
    for inner, level in pairwise(rack.levels):
        if len(inner.groups[0]) < size <= len(level.groups[0]) and size % len(inner.groups[0]) == 0:
            return level.groups
    return ()


def compact(rack: Rack, size: int) -> tuple[tuple[int, ...], ...]:
    """Each group grown from the lowest chip left by the chip with the fewest hops to those it has."""
    far = hops(rack)
    left = list(range(rack.chips))
    out: list[tuple[int, ...]] = []
    while len(left) >= size:
        group = [left.pop(0)]
        while len(group) < size:
            best = min(left, key=lambda chip: (int(far[group, chip].sum() + far[chip, group].sum()), chip))
            group.append(best)
            left.remove(best)
        out.append(tuple(group))
    return tuple(out)


def tables_of(cost: CostModel) -> Tables:
    """Tables for the grouping whose blocks take fewer cycles inside; the contiguous one if they are equal."""
    rack, size = cost.rack, cost.shards.tp
    plain, close = contiguous(rack, size), compact(rack, size)
    kinds = range(max(cost.shards.kinds) + 1)

    def inside(groups: tuple[tuple[int, ...], ...]) -> int:
        return sum(cost.inside(kind, group).cycles for kind in kinds for group in groups)

    return cost.tables(close if close != plain and inside(close) < inside(plain) else plain)


def fill(shards: Shards, rack: Rack, groups: tuple[tuple[int, ...], ...]) -> Placement:
    """Each block where the last one is if it fits, else on the next group; raises CapacityError."""
    stages = assign(shards.sizes(), shards.room_of(rack.name, len(groups)), None)
    return np.array(
        [np.array(groups[stage.group])[turned(shards.tp, stage.turn, 1)] for stage in stages], np.int64
    )


def first_fit(tables: Tables) -> list[int]:
    """The group of each block: the first that has room; raises CapacityError if none has."""
    shards = tables.shards
    used = [0] * len(tables.groups)
    at: list[int] = []
    for kind, name in zip(shards.kinds, shards.names, strict=True):
        words = tables.words[kind]
        free = [g for g, have in enumerate(used) if have + words <= shards.room]
        if not free:
            raise CapacityError(
                "place",
                f"block {name}",
                f"needs {words} words per chip, the emptiest group has {shards.room - min(used)} left",
                f"Use a larger rack{LESS_KV}.",
            )
        at.append(free[0])
        used[free[0]] += words
    return at
