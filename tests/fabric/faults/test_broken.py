"""Faults of a rack: what they are called, what is refused, and the rack that they leave."""

import numpy as np
import pytest

from fabric.faults.broken import avoiding, break_rack
from fabric.faults.fault import BadWords, FaultError, parse_fault, parse_faults
from fabric.numbering import as_given, numbering
from fabric.rack import Rack, load_rack

LPX = load_rack("lpx")
DOORS = [
    f"link:{a}-{b}"
    for a, b in zip(LPX.links.a.tolist(), LPX.links.b.tolist(), strict=True)
    if a < b and (40 <= a < 48) != (40 <= b < 48)
]


def broken(*names: str, rack: Rack = LPX) -> Rack:
    return break_rack(rack, parse_faults(names))


@pytest.mark.parametrize("name", ["chip:17", "link:3-4", "lane:3-4/2", "tray:5", "sram:17/0x1000+4096"])
def test_a_fault_is_written_as_it_is_read(name: str) -> None:
    assert str(parse_fault(name)) == name


def test_the_ends_of_a_cable_have_no_order() -> None:
    assert parse_fault("link:4-3") == parse_fault("link:3-4")
    assert parse_fault("sram:1/16+0x20") == parse_fault("sram:1/0x10+32")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["chip:256"], "has chips 0 to 255"),
        (["tray:32"], "has trays 0 to 31"),
        (["link:0-255"], "has no link there. Chip 0 has links to 1 2"),
        (["lane:3-4/8"], "has there lanes 0 to 7"),
        (["sram:3/0x17d795+1"], "is words 1562517 to 1562517, a chip has words 0 to 1562499"),
        (["sram:3/0+0"], "Give words of the chip"),
        (["chip"], "'chip': is not written as a chip is"),
        (["fan:3"], "names no part"),
        (["chip:-1"], "is not written as a chip is"),
        (["chip:3", "chip:3"], "chip:3: is given twice"),
        (["link:3-4", "link:4-3"], "link:3-4: is given twice"),
        (["chip:17", "tray:2"], "chip:17: lies in tray:2"),
        (["link:3-4", "chip:3"], "link:3-4: lies in chip:3"),
        (["link:3-4", "lane:3-4/1"], "lane:3-4/1: lies in link:3-4"),
        (["sram:3/0x10+16", "chip:3"], "sram:3/0x10+16: lies in chip:3"),
        (["sram:3/0x10+16", "sram:3/0x18+16"], "share words"),
        ([f"tray:{i}" for i in range(32)], "leave 0 of the 256 chips"),
    ],
)
def test_what_cannot_be_broken_is_said_in_one_line(names: list[str], said: str) -> None:
    with pytest.raises(FaultError) as error:
        broken(*names)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_rack_of_listed_links_has_no_trays() -> None:
    from fabric.rack import build_rack
    from fabric.topology import RackSpec

    spec = RackSpec(name="own", chip="tiny", forward_ns=1, chips=2, links=((0, 1, 2, 10),))
    from dataclasses import replace

    from fabric.catalog import chip_spec
    from fabric.chip import stated

    spec = replace(spec, sources=stated(spec.numbers(), (), "test"))
    with pytest.raises(FaultError, match="has no trays"):
        broken("tray:0", rack=build_rack(spec, chip_spec("tiny")))


def test_a_dead_chip_takes_its_links_and_no_other() -> None:
    rack = broken("chip:17")
    gone = len(LPX.neighbours(17))
    assert len(rack.links) == len(LPX.links) - 2 * gone
    assert rack.damage
    assert rack.damage.dead == (17,)


def test_a_dead_lane_makes_its_cable_narrower_both_ways() -> None:
    rack = broken("lane:3-4/2", "lane:3-4/7")
    assert [int(rack.links.lanes[rack.link(*pair)]) for pair in ((3, 4), (4, 3), (3, 5))] == [6, 6, 8]


def test_a_cable_without_lanes_is_no_cable() -> None:
    rack = broken(*(f"lane:3-4/{i}" for i in range(8)))
    assert rack.link(3, 4) == -1 == rack.link(4, 3)


def test_a_tray_whose_doors_are_all_dead_is_cut_off() -> None:
    rack = broken(*DOORS)
    assert len(DOORS) == 62
    assert rack.damage
    assert rack.damage.cut == tuple(range(40, 48))
    assert not set(range(40, 48)) & set(numbering(rack).chips.tolist())


def test_whole_trays_come_first_and_bad_words_last() -> None:
    found = numbering(broken("chip:1", "link:16-17", "sram:30/0x10+4"))
    chips = found.chips.tolist()
    assert chips[:8] == list(range(8, 16))
    assert set(chips[-22:]) == {*range(8), *range(16, 32)} - {1} - set(chips[:-22])
    assert chips[-1] == 30
    assert 1 not in chips
    assert len(chips) == 255 == found.rack.chips
    assert found.rack.damage
    assert found.rack.damage.bad == (BadWords(254, 16, 20),)


def test_links_between_living_chips_keep_their_numbers() -> None:
    found = numbering(broken("chip:1", "lane:8-9/0"))
    links, given = found.rack.links, found.given
    rows = [
        given.link(int(found.chips[a]), int(found.chips[b])) for a, b in zip(links.a, links.b, strict=True)
    ]
    assert min(rows) >= 0
    assert len(rows) == len(given.links)
    for name in ("lanes", "hop_cycles", "slot_cycles"):
        assert np.array_equal(getattr(links, name), getattr(given.links, name)[rows])


def test_more_faults_are_added_to_those_there_are() -> None:
    rack = broken("chip:3", rack=broken("link:3-4", "chip:9"))
    assert rack.damage
    assert [str(one) for one in rack.damage.faults] == ["chip:9", "chip:3"]
    with pytest.raises(FaultError, match="chip:9: is broken already"):
        broken("chip:9", rack=rack)


def test_a_users_own_strategy_sees_living_chips_by_number() -> None:
    assert as_given(broken("chip:2", rack=load_rack("quad"))).chips.tolist() == [0, 1, 3]


def test_chips_with_bad_words_can_be_left_out() -> None:
    rack = avoiding(broken("sram:30/0x10+4"))
    assert rack.damage
    assert rack.damage.lost == (30,)
    assert not rack.damage.bad
