"""CP-SAT: the same model as constraints, solved by ortools (an extra): one worker, deterministic time.

Source: Perron and Didier, OR-Tools CP-SAT. Above `MOST` blocks it is worse than the DP and takes minutes.
"""

from typing import Any

from compiler.errors import CapacityError
from compiler.place.cost import CostModel
from compiler.place.groups import tables_of
from compiler.place.problem import Placement, PlacementError, Shards
from compiler.place.strategies.annealing import start
from compiler.place.tables import Tables
from fabric.rack import Rack

MOST = 24  # blocks
PER_UNIT = 1000  # evaluations of the budget that a unit of deterministic time stands for


def place(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> Placement:
    """The best found in budget / 1000 units of deterministic time; `proved` if it is the optimum."""
    if len(shards) > MOST:
        raise PlacementError(
            "place",
            "cpsat",
            f"the model has {len(shards)} blocks, this is for at most {MOST}",
            "Use annealing.",
        )
    try:
        from ortools.sat.python import cp_model  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise PlacementError(
            "place", "cpsat", "needs ortools, which is not installed", "pip install 'lpu-emulator[cpsat]'."
        ) from None
    library: Any = cp_model
    tables = tables_of(cost)
    at = start(tables, cost, 50)
    model = library.CpModel()
    on = _model(model, tables, at)
    solver = library.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = max(budget / PER_UNIT, 0.01)
    status = solver.solve(model)
    if status == library.INFEASIBLE:
        raise CapacityError("place", "cpsat", "no placement fits", "Use a larger rack.")
    if status in (library.OPTIMAL, library.FEASIBLE):
        found = [next(g for g, one in enumerate(row) if solver.value(one)) for row in on]
        value = tables.value(found)
        assert value == round(solver.objective_value), "the constraints are the tables' own model"
        cost.note(value)
        at = found
        cost.proved = status == library.OPTIMAL
    return tables.placement(at)


def _model(model: Any, tables: Tables, hint: list[int]) -> list[list[Any]]:
    """Variables and constraints of the tables' model; gives [block][group]: whether it is there."""
    shards, groups = tables.shards, range(len(tables.groups))
    kinds = shards.kinds
    horizon = sum(max(tables.alone[k]) + max(map(max, tables.hand[k])) for k in kinds)
    on = [[model.new_bool_var(f"on {i} {g}") for g in groups] for i in range(len(shards))]
    ends = [model.new_int_var(0, horizon, f"end {i}") for i in range(len(shards))]
    step = model.new_int_var(0, horizon, "step")
    begins: list[Any] = []
    for i, row in enumerate(on):
        model.add_exactly_one(row)
        model.add_hint(row[hint[i]], 1)
        begins.append(ends[i] - sum(tables.alone[kinds[i]][g] * row[g] for g in groups))
        model.add(begins[i] >= 0)
        model.add(step >= ends[i])
    for g in groups:
        model.add(sum(tables.words[kinds[i]] * row[g] for i, row in enumerate(on)) <= shards.room)

    def hand(source: int, target: int) -> Any:
        """A variable that is at least what handing on takes."""
        table = tables.hand[kinds[source]]
        cycles = model.new_int_var(0, max(map(max, table)), f"hand {source} {target}")
        for a in groups:
            for b in groups:
                model.add(cycles >= table[a][b]).only_enforce_if(on[source][a], on[target][b])
        return cycles

    for i, reads in enumerate(shards.before):
        for before in reads:
            model.add(begins[i] >= ends[before] + hand(before, i))
        for other in range(i):
            if not shards.is_chain and other not in reads:
                for g in groups:
                    model.add(begins[i] >= ends[other]).only_enforce_if(on[other][g], on[i][g])
    back = hand(len(shards) - 1, 0) if shards.ring else 0
    period = model.new_int_var(0, sum(tables.busy[k] for k in kinds), "period")
    for g in groups:
        model.add(period >= sum(tables.busy[kinds[i]] * row[g] for i, row in enumerate(on)))
    model.minimize(step + back + tables.alpha * period)
    return on
