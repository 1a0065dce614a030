import numpy as np
import pytest
from renumbered import RACKS, built, level, relabelled

from fabric.catalog import rack_names
from fabric.numbering import numbering
from fabric.paths import hops
from fabric.rack import Rack, load_rack
from fabric.topology import Level


def wires(rack: Rack) -> list[tuple[int, ...]]:
    links = rack.links
    return list(zip(*(c.tolist() for c in (links.a, links.b, links.lanes, links.hop_cycles)), strict=True))


@pytest.mark.parametrize("name", rack_names())
def test_racks_of_the_catalog_keep_their_numbers(name: str) -> None:
    rack = load_rack(name)
    found = numbering(rack)
    mesh = sum(level.kind == "line" for level in rack.spec.levels) > 1  # in squares
    assert (found.chips.tolist() == list(range(rack.chips))) != mesh
    one_kind = len({level.kind for level in rack.spec.levels}) == 1 < len(rack.spec.levels)
    assert found.rack is rack or one_kind  # a mesh of two like axes is one tray, not trays of a row


@pytest.mark.parametrize("name", RACKS)
def test_a_relabelled_rack_is_numbered_as_the_rack_is(name: str) -> None:
    rack = RACKS[name]()
    own = numbering(rack)
    for seed in range(3):
        other = relabelled(rack, seed)
        assert wires(other) != wires(rack)
        found = numbering(other)
        assert wires(found.rack) == wires(own.rack)
        assert found.rack.levels[0].groups == own.rack.levels[0].groups
        assert sorted(found.chips.tolist()) == list(range(rack.chips))
        for a, b, lanes, _ in wires(found.rack):
            assert other.links.lanes[other.link(*found.named((a, b)))] == lanes


@pytest.mark.parametrize(
    "racks",
    [
        [[level("a", "torus", 8, shape)] for shape in ((2, 4), (4, 2), (2, 2, 2))],
        [[level("a", "ring", 4), level("b", "ring", 3)], [level("a", "torus", 12, (3, 4))]],
        [[level("a", "line", 5), level("b", "line", 2)], [level("b", "line", 2), level("a", "line", 5)]],
        [[level("a", "ring", 3)], [level("a", "all-to-all", 3)]],
    ],
)
def test_levels_in_another_order_are_the_same_rack(racks: list[list[Level]]) -> None:
    found = [numbering(built(0, (), *levels)) for levels in racks]
    assert all(wires(one.rack) == wires(found[0].rack) for one in found)


def test_the_closest_chips_of_an_irregular_rack_come_first() -> None:
    links = ((0, 1, 1, 400), (1, 2, 1, 400), (2, 3, 8, 50), (3, 4, 1, 400), (4, 0, 1, 400), (4, 1, 1, 400))
    found = numbering(built(5, links))
    assert sorted(found.named((0, 1))) == [2, 3]
    assert str(found).startswith("drawn: chips in the order")


def test_numbers_are_found_once_per_rack() -> None:
    rack = RACKS["irregular"]()
    assert numbering(rack).rack is numbering(rack).rack
    assert not np.array_equal(numbering(rack).chips, np.arange(rack.chips))


def test_four_chips_of_a_mesh_are_a_square_however_large_it_is() -> None:
    for columns, rows in ((4, 2), (4, 3), (4, 4), (6, 5)):
        rack = built(0, (), level("row", "line", columns), level("column", "line", rows))
        chips = numbering(rack).chips[:4]
        assert hops(rack)[np.ix_(chips, chips)].max() == 2


@pytest.mark.parametrize("rack", [built(1), built(0, (), level("a", "ring", 1)), built(2, ((1, 0, 1, 5),))])
def test_the_smallest_racks_keep_their_numbers(rack: Rack) -> None:
    assert numbering(rack).rack is rack


def test_a_rack_too_symmetric_to_tell_its_chips_apart_keeps_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fabric.numbering.canonical_order", lambda table: None)
    rack = relabelled(RACKS["ring"](), 3)
    assert numbering(rack).rack is rack
    assert "keep their numbers" in str(numbering(rack))
