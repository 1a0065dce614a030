"""Simulated annealing: blocks move from group to group, worse moves are taken more and more rarely.

Plain lists and integers: a move of a chain costs a few table entries, whatever the length of the model.
Source: Kirkpatrick, Gelatt and Vecchi 1983; for mappings of layers SET (ISCA 2023).
"""

import math
from random import Random

from compiler.errors import CapacityError
from compiler.place.cost import CostModel
from compiler.place.groups import first_fit, tables_of
from compiler.place.problem import Placement, Shards
from compiler.place.strategies.parametric_dp import best_runs
from compiler.place.tables import Tables
from fabric.rack import Rack

COOLEST = 0.5  # cycles: the temperature of the last move
STEPS = 200  # temperatures
RENAME = 997  # every so many moves two groups change all of their blocks


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """From the parametric DP (a graph: first fit), `budget` moves; raises CapacityError."""
    tables = tables_of(cost)
    at = start(tables, cost, budget)
    if len(shards) > 1 and len(tables.groups) > 1:
        moves = _chain if shards.is_chain else _graph
        at = moves(tables, cost, at, Random(seed), budget)
    return tables.placement(at)


def start(tables: Tables, cost: CostModel, budget: int) -> list[int]:
    """A placement that fits: runs if there are any, else first fit; raises CapacityError."""
    if tables.shards.is_chain:
        try:
            return best_runs(tables, cost, budget)
        except CapacityError:
            pass
    at = first_fit(tables)
    cost.note(tables.value(at))
    return at


def _hottest(tables: Tables) -> float:
    """A temperature at which handing on to another group instead of the same one is often taken."""
    groups = range(len(tables.groups))
    jumps = [table[a][b] - table[a][a] for table in tables.hand for a in groups for b in groups if a != b]
    return max(sum(map(abs, jumps)) / len(jumps) / 2, 4 * COOLEST)


def _chain(tables: Tables, cost: CostModel, first: list[int], random: Random, budget: int) -> list[int]:
    """Moves of one block at a time, each evaluated by what changes around it."""
    shards, kinds, alpha, groups = tables.shards, tables.shards.kinds, tables.alpha, len(tables.groups)
    count, room, draw, exp = len(first), tables.shards.room, random.random, math.exp
    alone = [tables.alone[kind] for kind in kinds]
    hand = [tables.hand[kind] for kind in kinds]
    words, loads = [tables.words[kind] for kind in kinds], [tables.busy[kind] for kind in kinds]
    none = [[0] * groups] * groups
    give = [*hand[:-1], hand[-1] if shards.ring else none]  # give[-1] also reaches the first block
    at, used, busy = list(first), tables.used(first), [0] * groups
    for load, group in zip(loads, at, strict=True):
        busy[group] += load
    value, period = tables.value(at), max(busy)
    best, lowest = list(at), value
    heat = _hottest(tables)
    cooling = (COOLEST / heat) ** (1 / STEPS)
    valid, every, noted = 0, max(budget // STEPS, 1), cost.evaluations
    for move in range(budget):
        if move % every == every - 1:
            heat *= cooling
        if move % RENAME == RENAME - 1:
            a, b = int(draw() * groups), int(draw() * groups)
            renamed = [b if group == a else a if group == b else group for group in at]
            found = tables.latency(renamed) + alpha * period
            if found <= value or draw() < exp((value - found) / heat):
                at, value = renamed, found
                used[a], used[b], busy[a], busy[b] = used[b], used[a], busy[b], busy[a]
                if value < lowest:
                    best, lowest = list(at), value
                    cost.best.append((noted + valid, value))
            continue
        while True:  # until the block would move
            i = int(draw() * count)
            after = i + 1 if i + 1 < count else 0
            choice = draw()
            old = at[i]
            if choice < 0.4:
                new = at[i - 1]
            elif choice < 0.8:
                new = at[after]
            else:
                new = int(draw() * groups)
            if new != old:
                break
        if used[new] + words[i] > room:
            continue
        valid += 1
        row, before, mine = alone[i], give[i - 1][at[i - 1]], give[i]
        change = row[new] - row[old] + before[new] - before[old]
        if after != i:
            change += mine[new][at[after]] - mine[old][at[after]]
        load, long = loads[i], period
        if alpha:
            if busy[old] == period:
                busy[old] -= load
                long = max(busy)
                busy[old] += load
            long = max(long, busy[new] + load)
            change += alpha * (long - period)
        if change <= 0 or draw() < exp(-change / heat):
            at[i], value, period = new, value + change, long
            used[old] -= words[i]
            used[new] += words[i]
            busy[old] -= load
            busy[new] += load
            if value < lowest:
                best, lowest = list(at), value
                cost.best.append((noted + valid, value))
    cost.evaluations = noted + valid
    return best


def _graph(tables: Tables, cost: CostModel, first: list[int], random: Random, budget: int) -> list[int]:
    """Moves of one block, or of two that change places, each evaluated whole."""
    kinds, groups, count = tables.shards.kinds, len(tables.groups), len(first)
    at, value = list(first), tables.value(first)
    best, lowest, used = list(at), value, tables.used(first)
    heat = _hottest(tables)
    cooling = (COOLEST / heat) ** (1 / STEPS)
    every = max(budget // STEPS, 1)
    for move in range(budget):
        if move % every == every - 1:
            heat *= cooling
        i, j = int(random.random() * count), int(random.random() * count)
        new = int(random.random() * groups)
        moves = [(i, at[j]), (j, at[i])] if random.random() < 0.3 else [(i, new)]
        back = [(one, at[one]) for one, _ in moves]
        for one, group in moves:
            words = tables.words[kinds[one]]
            used[at[one]] -= words
            used[group] += words
            at[one] = group
        if moves != back and max(used) <= tables.shards.room:
            found = tables.value(at)
            cost.note(found)
            if found <= value or random.random() < math.exp((value - found) / heat):
                value = found
                if value < lowest:
                    best, lowest = list(at), value
                continue
        for one, group in back:
            words = tables.words[kinds[one]]
            used[at[one]] -= words
            used[group] += words
            at[one] = group
    return best
