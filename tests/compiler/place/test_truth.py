from importlib.util import find_spec

import numpy as np
import pytest

from compiler.errors import CompileError
from compiler.options import STRATEGIES
from compiler.place.groups import tables_of
from compiler.place.problem import PlacementError
from compiler.place.registry import search
from compiler.place.truth import ProvedProblem, cases

CASES = cases()
HEURISTICS = [name for name in STRATEGIES if name not in ("metis", "cpsat", "exhaustive")]
BUDGET = 20_000


def of(shape: str) -> list[ProvedProblem]:
    return [case for case in CASES if case.shape == shape]


def value(case: ProvedProblem, name: str, seed: int = 0, budget: int = BUDGET) -> int:
    cost = case.cost()
    return cost.estimate(search(name, cost.shards, cost.rack, cost, seed, budget)).value


def test_the_set_holds_chains_diamonds_and_experts_each_proved_twice() -> None:
    assert {case.shape for case in CASES} == {"chain", "diamonds", "experts"}
    assert {len(case.needs) for case in CASES} == {4, 6, 8, 10, 12, 14}
    assert all(case.proved_by == ("exhaustive", "cpsat") for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_stored_optimum_is_the_value_of_its_placement_and_fits(case: ProvedProblem) -> None:
    tables = tables_of(case.cost())
    assert tables.fits(case.at)
    assert tables.value(case.at) == case.optimum


@pytest.mark.parametrize("case", [c for c in CASES if len(c.needs) <= 8], ids=lambda case: case.name)
def test_exhaustive_search_proves_the_optimum_again(case: ProvedProblem) -> None:
    cost = case.cost()
    found = search("exhaustive", cost.shards, cost.rack, cost, 0, 1_000_000)
    assert cost.proved
    assert cost.estimate(found).value == case.optimum


@pytest.mark.parametrize("case", [c for c in CASES if len(c.needs) <= 6], ids=lambda case: case.name)
def test_no_placement_at_all_is_better_than_the_optimum(case: ProvedProblem) -> None:
    tables = tables_of(case.cost())
    every = np.stack(np.meshgrid(*[range(case.trays)] * len(case.needs)), -1).reshape(-1, len(case.needs))
    assert min(tables.value(at) for at in every.tolist() if tables.fits(at)) == case.optimum


@pytest.mark.parametrize("name", HEURISTICS)
def test_no_heuristic_beats_the_optimum(name: str) -> None:
    tried = 0
    for case in CASES:
        try:
            found = value(case, name, budget=2000)
        except CompileError:
            continue
        tried += 1
        assert found >= case.optimum or name == "spectral", case.name
    assert tried


@pytest.mark.parametrize("case", of("chain"), ids=lambda case: case.name)
def test_the_parametric_dp_is_exact_on_chains(case: ProvedProblem) -> None:
    assert value(case, "parametric-dp") == case.optimum


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_annealing_is_within_five_percent_of_the_optimum(case: ProvedProblem) -> None:
    for seed in range(2):
        assert value(case, "annealing", seed, budget=5000) <= 1.05 * case.optimum


@pytest.mark.parametrize("name", ["minmax-dp", "parametric-dp"])
def test_a_dp_refuses_what_is_no_chain(name: str) -> None:
    with pytest.raises(PlacementError, match="is for chains, block b2 reads"):
        value(of("diamonds")[0], name)


def test_an_exhaustive_search_that_does_not_end_within_its_budget_says_so() -> None:
    with pytest.raises(PlacementError, match="14 blocks on 4 groups take more than the budget of 10"):
        value(of("experts")[-1], "exhaustive", budget=10)


def test_cpsat_proves_what_it_says_it_proves_or_says_that_it_is_not_installed() -> None:
    for case in [case for case in CASES if len(case.needs) <= 12]:
        cost = case.cost()
        if find_spec("ortools") is None:
            with pytest.raises(PlacementError, match="needs ortools"):
                search("cpsat", cost.shards, cost.rack, cost, 0, BUDGET)
            continue
        found = cost.estimate(search("cpsat", cost.shards, cost.rack, cost, 0, BUDGET)).value
        assert cost.proved
        assert found == case.optimum
