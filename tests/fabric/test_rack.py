import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fabric.catalog import UnknownRackError, chip_spec, rack_names, rack_spec
from fabric.chip import stated
from fabric.link import ns_to_cycles
from fabric.paths import hops
from fabric.rack import Rack, build_rack, load_rack
from fabric.topology import Level, RackSpec


def built(
    links: Any = (), chips: int = 0, levels: tuple[Level, ...] = (), chip: str = "tiny", forward_ns: int = 0
) -> Rack:
    spec = RackSpec(
        name="r", chip=chip, forward_ns=forward_ns, chips=chips, levels=levels, links=tuple(links)
    )
    return build_rack(replace(spec, sources=stated(spec.numbers(), (), "test")), chip_spec(chip))


def nodes(count: int, kind: Any) -> Rack:
    """GroqChip1 nodes of 8, each wired to the 4 nodes before and after it with 4 links."""
    node, rack = rack_spec("groqrack-72").levels
    return built(levels=(node, replace(rack, size=count, kind=kind)), chip="groqchip1")


def gigabytes_per_second(rack: Rack, links: Any) -> float:
    chip = rack.chip
    lanes = int(rack.links.lanes[links].sum())
    return float(Fraction(lanes * 320 * chip.clock_hz, chip.slot_cycles)) / 1e9


@pytest.mark.parametrize("name", rack_names())
def test_every_rack_of_the_catalog_loads_with_sources_and_fits_its_lanes(name: str) -> None:
    rack = load_rack(name)
    links = rack.links
    assert all(source.source for source in rack.sources)
    assert np.array_equal(np.lexsort((links.b, links.a)), np.arange(len(links)))
    back = links.index[links.b, links.a]
    for column in (links.lanes, links.hop_cycles, links.slot_cycles, links.level):
        assert np.array_equal(column, column[back])
    assert np.bincount(links.a, weights=links.lanes).max() <= rack.chip.lanes
    assert all(sorted(sum(level.groups, ())) == list(range(rack.chips)) for level in rack.levels)


def test_lpx_reaches_the_published_ladder_of_chips() -> None:
    rack = load_rack("lpx")
    distance = hops(rack)
    assert (rack.chips, len(rack.links)) == (256, 2 * 1888)
    assert [float((distance <= k).sum(1).mean()) for k in (1, 2, 3)] == [15.75, 126.0, 256.0]
    assert np.bincount(rack.links.a, weights=rack.links.lanes).max() == 88


def test_lpx_has_two_links_of_four_lanes_between_every_two_trays() -> None:
    rack = load_rack("lpx")
    between = rack.links.level == 1
    pairs = (rack.links.a[between] // 8) * 32 + rack.links.b[between] // 8
    assert np.array_equal(np.bincount(pairs, minlength=1024).reshape(32, 32), 2 - 2 * np.eye(32, dtype=int))
    assert set(rack.links.lanes[between].tolist()) == {4}
    assert set(rack.links.lanes[~between].tolist()) == {8}
    # Tray 0 to tray 3: links 4 and 5 of distance 3, on chips 4 and 5, at 7 - 4 and 7 - 5.
    assert rack.link(4, 24 + 3) >= 0
    assert rack.link(5, 24 + 2) >= 0


def test_lpx_hops_take_the_published_nanoseconds_rounded_up_to_cycles() -> None:
    rack = load_rack("lpx")
    assert set(rack.links.hop_cycles.tolist()) == {513}  # 350 ns at 1.46484375 GHz = 512.7
    assert rack.forward_cycles == 74  # 50 ns = 73.2
    for count, micros in ((1, 0.35), (2, 0.75), (3, 1.15)):
        cycles = count * 513 + (count - 1) * 74
        assert 0 <= cycles / rack.chip.clock_hz * 1e6 - micros < 0.005


def test_lpx_16x16_has_diameter_two_and_ninety_lanes_in_use() -> None:
    rack = load_rack("lpx-16x16")
    assert hops(rack).max() == 2
    assert set(np.bincount(rack.links.a, weights=rack.links.lanes).tolist()) == {90}


def test_groqrack_has_the_published_diameter_bisection_and_ports() -> None:
    rack = load_rack("groqrack-72")
    assert hops(rack).max() == 3
    assert set(np.bincount(rack.links.a).tolist()) == {11}
    cut = (rack.links.a < 32) & (rack.links.b >= 32)  # 4 nodes from 5
    assert gigabytes_per_second(rack, cut) == pytest.approx(853.3, abs=0.05)
    assert 2 * gigabytes_per_second(rack, rack.links.a == 0) == pytest.approx(234.7, abs=0.05)


def test_seventeen_nodes_in_a_ring_have_the_published_diameter_of_five() -> None:
    assert hops(nodes(17, "ring")).max() == 5


@pytest.mark.parametrize(("dead", "published"), [(0, 427), (1, 256), (2, 128), (3, 43)])
def test_skipping_dead_nodes_leaves_the_published_bandwidth(dead: int, published: int) -> None:
    rack = nodes(17, "line")
    first, last = 8, 8 + dead  # the nodes from first to last - 1 are dead
    a, b = rack.links.a // 8, rack.links.b // 8
    assert gigabytes_per_second(rack, (a < first) & (b >= last)) == pytest.approx(published, abs=0.5)


# Hot Chips 38: 1.60, 2.05, 2.50, 2.95 us at 384, 640, 896, 1152 GB of SRAM, of 0.5 GB a chip.
LADDER = ((1.15, 256), (1.60, 768), (2.05, 1280), (2.50, 1792), (2.95, 2304))


@pytest.mark.parametrize("racks", [2, 3, 4, 6, 8, 12, 16])
def test_several_racks_reach_the_published_ladder_step_by_step(racks: int) -> None:
    rack = load_rack(f"lpx-x{racks}")
    assert rack.chips == 256 * racks
    assert [len(rack.groups(name)) for name in ("tray", "rack", "row")] == [32 * racks, racks, 1]
    one = load_rack("lpx")
    links = rack.links
    between = links.level == 2
    assert int((~between).sum()) == racks * len(one.links)
    assert np.array_equal(links.a[between] % 256, links.b[between] % 256)  # node k to node k
    assert set(np.bincount(links.a[between], weights=links.lanes[between]).tolist()) == {4}
    distance = hops(rack)
    assert distance.max() == 3 + racks // 2
    step, inside = int(links.hop_cycles[between][0]), int(one.links.hop_cycles[0])
    for steps, (micros, chips) in enumerate(LADDER[: racks // 2 + 1]):
        whole = (distance <= 3 + steps).reshape(rack.chips, racks, 256).all(2).sum(1)  # racks, of each chip
        assert set(whole.tolist()) == {min(chips // 256, racks)}
        cycles = 3 * inside + steps * step + (2 + steps) * rack.forward_cycles
        assert 0 <= cycles / rack.chip.clock_hz * 1e6 - micros < 0.006


def test_racks_are_listed_by_their_numbers() -> None:
    several = [name for name in rack_names() if name.startswith("lpx-x")]
    assert several == [f"lpx-x{n}" for n in (2, 3, 4, 6, 8, 12, 16)]


def test_a_rack_of_another_chip_counts_in_that_chips_cycles() -> None:
    assert load_rack("quad", "tiny").links.hop_cycles[0] == 350
    assert load_rack("quad", chip_spec("lp30-p8")).links.slot_cycles[0] == 18
    assert ns_to_cycles(350, 10**9) == 350
    assert ns_to_cycles(1, 1_464_843_750) == 2


def test_links_are_found_by_their_ends_and_by_one_end() -> None:
    rack = built([(0, 1, 1, 10), (2, 1, 3, 20)], chips=3)
    row = rack.link(1, 2)
    assert (rack.links.lanes[row], rack.links.hop_cycles[row]) == (3, 20)
    assert rack.link(0, 2) == -1
    assert rack.neighbours(1).tolist() == [0, 2]
    assert rack.neighbours(2).tolist() == [1]
    assert rack.groups("links") == ((0, 1, 2),)


def test_links_of_the_file_come_on_top_of_levels() -> None:
    ring = Level(name="ring", kind="ring", size=5, lanes=1, hop_ns=7)
    rack = built([(0, 2, 2, 9)], levels=(ring,))
    assert rack.links.level[rack.link(2, 0)] == 1
    assert rack.links.level[rack.link(4, 0)] == 0
    assert str(rack) == "r: 5 chips tiny, 6 cables, 1 ring, 1 links"


def test_one_chip_alone_is_a_rack() -> None:
    rack = built(chips=1)
    assert len(rack.links) == 0
    assert rack.neighbours(0).tolist() == []
    assert hops(rack).tolist() == [[0]]


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([(0, 1, 1, 9), (2, 3, 1, 9)], "chip 2 cannot be reached from chip 0"),
        ([(0, 0, 1, 9)], "link 0-0: joins a chip to itself"),
        ([(0, 1, 1, 9), (1, 0, 1, 9)], "link 1-0: is there twice"),
        ([(0, 1, 0, 9)], "link 0-1: has 0 lanes, needs at least 1"),
        ([(0, 1, 90, 9), (0, 2, 8, 9)], "chip 0: its links take 98 lanes, a tiny has 96"),
        ([(0, 4, 1, 9)], "link 0-4: the rack has 4 chips"),
        ([(0, -1, 1, 9)], "link 0--1: the rack has 4 chips"),
        ([(0, 1, 1, 0)], "link 0-1: takes 0 cycles"),
    ],
)
def test_a_rack_that_cannot_be_says_where_and_both_numbers(links: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"rack r: .*{message}"):
        built(links, chips=4)


def test_a_rack_without_sources_is_refused() -> None:
    with pytest.raises(ValueError, match="forward_ns has 0 sources, needs 1"):
        build_rack(RackSpec(name="r", chip="tiny", forward_ns=0, chips=1), chip_spec("tiny"))


def test_an_unknown_rack_or_level_is_answered_with_the_names() -> None:
    with pytest.raises(UnknownRackError, match="Did you mean lpx-tray"):
        load_rack("lpx-trays")
    with pytest.raises(ValueError, match=r"has no level 'trya'. It has: tray, rack"):
        load_rack("lpx").groups("trya")


def test_a_rack_is_json_that_holds_what_a_checker_needs() -> None:
    rack = load_rack("torus-4x4")
    stated = json.loads(json.dumps(rack.to_json()))
    assert stated == rack.to_json()
    assert stated["chip"] == rack.chip.numbers()
    assert stated["links"][0] == [0, 1, 4, 100, 4]
    assert len(stated["links"]) == 64
    assert (stated["rack"], stated["chips"], stated["forward_cycles"]) == ("torus-4x4", 16, 50)


def test_the_graph_has_the_same_links() -> None:
    rack = load_rack("ring-8")
    graph = rack.graph()
    assert sorted(graph.edges) == list(zip(rack.links.a.tolist(), rack.links.b.tolist(), strict=True))
    assert graph.edges[0, 1] == {"lanes": 4, "hop_cycles": 100, "slot_cycles": 4}
