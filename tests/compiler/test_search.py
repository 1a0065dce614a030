from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from renumbered import RACKS, relabelled
from steps import llama

from compiler.errors import CapacityError
from compiler.latency import joined
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.search import doubled, first_that_fits, nearest, until_worse
from fabric.catalog import chip_spec
from fabric.chip import stated
from fabric.rack import Rack, build_rack, load_rack
from fabric.topology import Level, RackSpec


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


def test_a_refusal_says_nothing_of_the_candidates_after_it() -> None:
    found = until_worse(
        [9, 8, 3, 9, 1],
        lambda cost: refusing(5, cost),
        lambda cost: cost,
        patience=2,
        refused=(CapacityError,),
    )
    assert [one for one, _ in found.tried] == [9, 8, 3, 9, 1]
    assert found.found == (1, 1)
    assert [error.subject for error in found.refusals] == ["cost 9", "cost 8", "cost 9"]
    assert str(found).splitlines()[0] == "search: 5 tried, best is 1"


def test_the_first_that_fits_is_taken_and_the_first_reason_is_told() -> None:
    assert first_that_fits([9, 7, 4, 2], lambda cost: refusing(5, cost)) == 4
    with pytest.raises(CapacityError, match="cost 9"):
        first_that_fits([9, 7], lambda cost: refusing(5, cost))


def test_of_what_does_not_fit_the_one_that_asks_for_the_fewest_chips_is_told() -> None:
    errors = [CapacityError("test", f"needs {chips}", "more") for chips in (None, 12, 8, 9)]
    for error, chips in zip(errors, (None, 12, 8, 9), strict=True):
        error.chips = chips
    assert nearest(errors) is errors[2]
    assert nearest(errors[:1]) is errors[0]


def test_powers_of_two_go_up_to_a_limit() -> None:
    assert list(doubled(9)) == [1, 2, 4, 8]


@pytest.mark.slow
def test_the_rack_that_a_refusal_asks_for_is_the_smallest_that_holds_the_model() -> None:
    """Of chips with little SRAM in a line: one chip less does not do for any tp that the small rack has."""
    source = llama(layers=8)

    def line(chips: int) -> Rack:
        level = Level(name="line", kind="line", size=chips, lanes=4, hop_ns=100)
        spec = RackSpec(name="line", chip="tiny", forward_ns=50, levels=(level,))
        spec = replace(spec, sources=stated(spec.numbers(), (), "a test"))
        return build_rack(spec, replace(chip_spec("tiny"), sram_bytes=320 * 2500))

    def asked(chips: int) -> int:
        """Chips of the rack that a refusal on so few asks for; the same again if they do."""
        try:
            compile_program(source, line(chips), CompileOptions())
        except CapacityError as error:
            return error.chips if f" {error.chips} chips" in error.remedy and error.chips else 0
        return chips

    least = asked(2)  # the first refusal knows of weights alone, and says "at least"
    chips = asked(least)
    assert 2 < least <= chips == asked(chips)
    for tp in (1, 2):
        with pytest.raises(CapacityError):
            compile_program(source, line(chips - 1), CompileOptions(tp=tp))


def test_a_tp_whose_parts_are_more_than_the_rack_ends_the_search() -> None:
    def found(tp: int) -> int:
        if tp in (1, 4):
            error = CapacityError("stages", "rack", f"tp {tp} has no room", "Use a larger rack.")
            error.overfull = tp == 4
            raise error
        return tp

    searched = until_worse(
        (1, 2, 4, 8),
        found,
        int,
        patience=9,
        refused=(CapacityError,),
        hopeless=lambda error: isinstance(error, CapacityError) and error.overfull,
    )
    assert [tp for tp, _ in searched.tried] == [1, 2, 4]
    before: tuple[int, int] = (8, 2)
    assert until_worse([3, 2], lambda tp: 2, int, patience=2, before=before).best == (3, 2)
    assert until_worse([3, 2], lambda tp: tp, int, patience=2, before=before).best == (2, 2)
    assert until_worse([3, 4], lambda tp: tp, int, patience=2, before=before).best == before


@pytest.mark.parametrize(
    ("name", "size"), [("quad", 4), ("ring-8", 2), ("torus-4x4", 2), ("lpx-x2", 8), ("lpx-16x16", 16)]
)
def test_the_search_for_a_tp_begins_with_the_chips_of_a_tray(name: str, size: int) -> None:
    assert joined(load_rack(name)) == size


@pytest.mark.parametrize("name", RACKS)
def test_where_it_begins_does_not_depend_on_how_chips_are_numbered(name: str) -> None:
    assert joined(relabelled(RACKS[name](), 3)) == joined(RACKS[name]())
