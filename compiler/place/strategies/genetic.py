"""Genetic: a population of placements on groups, crossed at one block and mutated; the better ones stay."""

from random import Random

from compiler.place.cost import CostModel
from compiler.place.groups import first_fit, tables_of
from compiler.place.problem import Placement, Shards
from compiler.place.tables import Tables
from fabric.rack import Rack

POPULATION = 40
Member = tuple[int, list[int]]  # value, group of each block


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """From runs along random walks over the groups and first fit, `budget` children; raises CapacityError."""
    tables, random = tables_of(cost), Random(seed)
    members: list[Member] = []

    def add(at: list[int]) -> None:
        value = tables.value(at)
        cost.note(value)
        members.append((value, at))

    add(first_fit(tables))
    for _ in range(min(POPULATION, budget) - 1):
        if (at := _walk(tables, random)) is not None:
            add(at)
    members.sort()
    for _ in range(max(budget - POPULATION, 0)):
        one, other = (min(random.choice(members), random.choice(members))[1] for _ in range(2))
        cut = random.randrange(len(shards) + 1)
        child = [*one[:cut], *other[cut:]]
        for _ in range(random.randrange(3)):
            _mutate(child, len(tables.groups), random)
        if not tables.fits(child):
            continue
        value = tables.value(child)
        cost.note(value)
        if value < members[-1][0] and all(child != at for found, at in members if found == value):
            if len(members) >= POPULATION:
                members.pop()
            members.append((value, child))
            members.sort()
    return tables.placement(members[0][1])


def _mutate(at: list[int], groups: int, random: Random) -> None:
    """A run of blocks takes the group of the block before it, after it, or any."""
    first = random.randrange(len(at))
    last = min(first + random.randrange(1, 4), len(at))
    choice = random.randrange(4)
    if choice == 0:
        group = at[first - 1]
    elif choice == 1:
        group = at[last % len(at)]
    else:
        group = random.randrange(groups)
    at[first:last] = [group] * (last - first)


def _walk(tables: Tables, random: Random) -> list[int] | None:
    """Each block where the last one is, sometimes on the next of a random order; None if they run out."""
    order = list(range(len(tables.groups)))
    random.shuffle(order)
    used, at, here = 0, list[int](), 0
    for kind in tables.shards.kinds:
        words = tables.words[kind]
        if used + words > tables.shards.room or random.random() < 0.02:
            here, used = here + 1, 0
        if here >= len(order) or words > tables.shards.room:
            return None
        at.append(order[here])
        used += words
    return at
