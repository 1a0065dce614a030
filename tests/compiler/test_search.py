import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.errors import CapacityError
from compiler.search import dividing, doubled, first_that_fits, until_worse


def refusing(most: int, cost: int) -> int:
    if cost > most:
        raise CapacityError("test", f"cost {cost}", f"is above {most}")
    return cost


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(1, 3), st.booleans())
def test_a_search_finds_the_first_of_the_cheapest_and_ends_after_enough_worse_ones(
    costs: list[int], patience: int, ties: bool
) -> None:
    found = until_worse(range(len(costs)), costs.__getitem__, lambda cost: cost, patience=patience, ties=ties)
    tried = [cost for _, cost in found.tried if isinstance(cost, int)]
    assert tried == costs[: len(tried)]
    assert found.found == (tried.index(min(tried)), min(tried))
    worse = 0
    for i, cost in enumerate(tried):
        best = min(tried[:i], default=cost + 1)
        worse = 0 if cost < best or (ties and cost == best) else worse + 1
        assert (worse == patience) <= (i == len(tried) - 1)
    assert worse == patience or len(tried) == len(costs)


def test_a_refusal_ends_the_search_only_once_something_was_found() -> None:
    found = until_worse(
        [9, 8, 3, 9, 1],
        lambda cost: refusing(5, cost),
        lambda cost: cost,
        patience=2,
        refused=(CapacityError,),
    )
    assert [one for one, _ in found.tried] == [9, 8, 3, 9]
    assert found.found == (3, 3)
    assert [error.subject for error in found.refusals] == ["cost 9", "cost 8", "cost 9"]
    assert str(found).splitlines()[0] == "search: 4 tried, best is 3"


def test_the_first_that_fits_is_taken_and_the_first_reason_is_told() -> None:
    assert first_that_fits([9, 7, 4, 2], lambda cost: refusing(5, cost)) == 4
    with pytest.raises(CapacityError, match="cost 9"):
        first_that_fits([9, 7], lambda cost: refusing(5, cost))


def test_powers_of_two_go_up_to_a_limit_or_while_they_divide() -> None:
    assert list(doubled(9)) == [1, 2, 4, 8]
    assert list(dividing(24)) == [1, 2, 4, 8]
