"""Exhaustive: every placement of small cases on whole groups, branches that cannot win left out. Exact."""

from compiler.errors import CapacityError
from compiler.place.cost import CostModel
from compiler.place.groups import tables_of
from compiler.place.problem import Placement, PlacementError, Shards
from compiler.place.strategies.annealing import start
from compiler.place.tables import Tables
from fabric.rack import Rack


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """The placement of least value; PlacementError if `budget` steps do not prove it."""
    tables = tables_of(cost)
    try:
        first = start(tables, cost, 50)
    except CapacityError:
        first = None
    found = _Search(tables, cost, first, budget).run()
    if found is None:
        raise CapacityError(
            "place",
            f"{len(shards)} blocks",
            f"no placement on {len(tables.groups)} groups fits the {shards.room} words of a chip",
            "Use a larger rack.",
        )
    cost.proved = True
    return tables.placement(found)


class _Search:
    """Depth first over the blocks in order. at, finish: group and end of each block placed so far."""

    def __init__(self, tables: Tables, cost: CostModel, first: list[int] | None, budget: int) -> None:
        self.tables, self.cost, self.budget = tables, cost, budget
        self.steps = 0
        self.best = first
        self.value = tables.value(first) if first else 1 << 62
        count, groups = len(tables.shards), len(tables.groups)
        self.at, self.finish = [0] * count, [0] * count
        self.free, self.used, self.busy = [0] * groups, [0] * groups, [0] * groups
        self.alike = _alike(tables)
        self.tail = _tails(tables)
        self.left = [0] * (count + 1)
        for i in reversed(range(count)):
            self.left[i] = self.left[i + 1] + tables.busy[tables.shards.kinds[i]]

    def run(self) -> list[int] | None:
        """The best placement, None if none fits."""
        self._from(0, 0, 0)
        return self.best

    def _from(self, i: int, longest: int, opened: int) -> None:
        tables, shards, groups = self.tables, self.tables.shards, len(self.tables.groups)
        if i == len(self.at):
            value = tables.value(self.at)
            self.cost.note(value)
            if value < self.value:
                self.best, self.value = list(self.at), value
            return
        kind, words = shards.kinds[i], tables.words[shards.kinds[i]]
        busy = tables.busy[kind]
        for group in range(min(opened + 1, groups) if self.alike else groups):
            if self.used[group] + words > shards.room:
                continue
            self.steps += 1
            if self.steps > self.budget:
                raise PlacementError(
                    "place",
                    "exhaustive",
                    f"{len(self.at)} blocks on {groups} groups take more than the budget of {self.budget}",
                    "Raise --budget, or use annealing.",
                )
            begin = self.free[group]
            for one in shards.before[i]:
                begin = max(begin, self.finish[one] + tables.hand[shards.kinds[one]][self.at[one]][group])
            end = begin + tables.alone[kind][group]
            least = max(longest, end + self.tail[i])
            self.busy[group] += busy
            most = max(*self.busy, -(-(sum(self.busy) + self.left[i + 1]) // groups))
            if least + tables.alpha * most < self.value:
                self.at[i], self.finish[i] = group, end
                before, self.free[group] = self.free[group], end
                self.used[group] += words
                self._from(i + 1, least, max(opened, group + 1))
                self.free[group] = before
                self.used[group] -= words
            self.busy[group] -= busy


def _alike(tables: Tables) -> bool:
    """Whether any two groups can change places: then only the order of their first use matters."""
    groups = range(len(tables.groups))
    return all(len(set(row)) == 1 for row in tables.alone) and all(
        len({table[a][a] for a in groups}) == 1
        and len({table[a][b] for a in groups for b in groups if a != b}) <= 1
        for table in tables.hand
    )


def _tails(tables: Tables) -> list[int]:
    """The least cycles from the end of each block to the end of the step."""
    shards = tables.shards
    tail = [0] * len(shards)
    for i in reversed(range(len(shards))):
        alone = min(tables.alone[shards.kinds[i]])
        for before in shards.before[i]:
            hand = min(map(min, tables.hand[shards.kinds[before]]))
            tail[before] = max(tail[before], hand + alone + tail[i])
    return tail
