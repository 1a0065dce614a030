"""Groups: which `tp` chips a search keeps together."""

from compiler.place.cost import CostModel
from compiler.place.tables import Tables
from fabric.paths import hops
from fabric.rack import Rack


def contiguous(rack: Rack, size: int) -> tuple[tuple[int, ...], ...]:
    """Chips in number order."""
    return tuple(tuple(range(g * size, (g + 1) * size)) for g in range(rack.chips // size))


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
