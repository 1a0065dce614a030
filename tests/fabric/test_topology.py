from typing import Any

import pytest

from fabric.chip import stated
from fabric.topology import Level, RackSpec, cables, groups


def level(**numbers: Any) -> Level:
    base: dict[str, Any] = {"name": "x", "kind": "ring", "size": 4, "lanes": 1, "hop_ns": 1}
    return Level(**base | numbers)


@pytest.mark.parametrize(
    ("one", "pairs"),
    [
        (level(kind="all-to-all"), {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}),
        (level(kind="ring"), {(0, 1), (1, 2), (2, 3), (0, 3)}),
        (level(kind="ring", size=2), {(0, 1)}),
        (level(kind="ring", size=1), set()),
        (level(kind="line"), {(0, 1), (1, 2), (2, 3)}),
        (level(kind="line", reach=2), {(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)}),
        (level(kind="torus", shape=(2, 2)), {(0, 1), (2, 3), (0, 2), (1, 3)}),
        (
            level(kind="torus", size=6, shape=(2, 3)),
            {(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (0, 3), (1, 4), (2, 5)},
        ),
        (level(kind="torus", size=3, shape=(3, 1)), {(0, 1), (1, 2), (0, 2)}),
    ],
)
def test_each_kind_of_level_joins_the_pairs_that_its_name_says_once(
    one: Level, pairs: set[tuple[int, int]]
) -> None:
    found = cables((one,), 0)
    assert len(found) == len(pairs)
    assert {(min(pair), max(pair)) for pair in found} == pairs


def test_an_outer_level_joins_chips_of_the_same_rank_unless_it_counts_links() -> None:
    tray = level(kind="all-to-all", size=2)
    assert cables((tray, level(size=3)), 1) == [(0, 2), (1, 3), (2, 4), (3, 5), (4, 0), (5, 1)]
    spread = level(kind="dragonfly", size=3, links=2)
    assert cables((tray, spread), 1) == [(0, 3), (1, 2), (2, 5), (3, 4), (4, 1), (5, 0)]
    halves = level(kind="ring", size=3, links=2, ports="halves")
    assert cables((level(kind="all-to-all"), halves), 1) == [(0, 6), (1, 7), (4, 10), (5, 11), (8, 2), (9, 3)]


def test_groups_are_the_chips_of_each_tray_and_of_the_whole() -> None:
    levels = (level(size=2), level(size=3))
    assert groups(levels, 0) == ((0, 1), (2, 3), (4, 5))
    assert groups(levels, 1) == ((0, 1, 2, 3, 4, 5),)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"size": 0}, "size: level x has 0"),
        ({"lanes": 0}, "lanes: level x has 0"),
        ({"hop_ns": 0}, "hop_ns: level x has 0"),
        ({"kind": "dragonfly"}, "links: level x has 0, a dragonfly needs at least 1"),
        ({"kind": "torus"}, "shape: level x is"),
        ({"kind": "torus", "shape": (2, 3)}, "its product must be size 4"),
        ({"shape": (4,)}, "only a torus has a shape"),
        ({"reach": 3}, "of 4 the furthest are 2 apart"),
        ({"kind": "all-to-all", "reach": 2}, "only a ring or line has a reach"),
    ],
)
def test_a_level_that_cannot_be_says_which_number(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        level(**numbers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "chips: is 0, a rack without levels needs at least 1"),
        ({"forward_ns": -1, "chips": 1}, "forward_ns: is -1"),
        ({"levels": (level(), level())}, "the name 'x' is taken"),
        ({"levels": (level(links=1),)}, "the first level joins chips"),
        (
            {"levels": (level(size=3), level(name="y", links=1, ports="halves"))},
            "level y halves members of 3 chips",
        ),
        ({"levels": (level(),), "chips": 5}, "chips: is 5, the levels span 4"),
        ({"chips": 5000}, "has 5000, at most 4096"),
    ],
)
def test_a_rack_that_cannot_be_says_which_number(fields: dict[str, Any], message: str) -> None:
    base: dict[str, Any] = {"name": "r", "chip": "tiny", "forward_ns": 0}
    with pytest.raises(ValueError, match=message):
        RackSpec(**base | fields)


def test_the_numbers_of_a_rack_are_those_that_need_a_source() -> None:
    spec = RackSpec(
        name="r", chip="tiny", forward_ns=0, levels=(level(slot_cycles=3),), links=((0, 2, 1, 5),)
    )
    assert spec.numbers() == ["forward_ns", "x.size", "x.lanes", "x.hop_ns", "x.slot_cycles", "links"]
    assert len(stated(spec.numbers(), spec.sources, "here")) == 6


@pytest.mark.parametrize("numbers", [{"hop_ns": 10**10}, {"lanes": 10**30}])
def test_numbers_that_no_cycle_count_can_hold_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs at most 1_000_000_000"):
        level(**numbers)
    with pytest.raises(ValueError, match=r"links: .* holds a number above 1_000_000_000"):
        RackSpec(name="r", chip="tiny", forward_ns=0, chips=2, links=((0, 1, 1, 10**10),))
