"""Bridges: every number has a source, and a host lane is never faster than the wire or the rack's share."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from fabric.catalog import UnknownBridgeError, bridge_names, bridge_spec
from fabric.chip import WORD_BYTES, check_sources

CLOCKS = (900_000_000, 1_200_000_000)


@pytest.mark.parametrize("name", bridge_names())
def test_every_number_of_every_bridge_has_a_source(name: str) -> None:
    bridge = bridge_spec(name)
    assert bridge.name == name
    check_sources(name, list(bridge.numbers()), bridge.sources)


@pytest.mark.parametrize("name", bridge_names())
@pytest.mark.parametrize("clock_hz", CLOCKS)
def test_a_slot_never_beats_the_lane_nor_the_share_of_the_rack(name: str, clock_hz: int) -> None:
    bridge = bridge_spec(name)
    rate = Fraction(WORD_BYTES * clock_hz, bridge.slot_cycles(clock_hz))
    assert rate <= bridge.lpu_bytes_per_second
    assert rate * bridge.rack_lpus <= bridge.rack_bytes_per_second
    faster = Fraction(WORD_BYTES * clock_hz, max(bridge.slot_cycles(clock_hz) - 1, 1))
    assert faster > min(bridge.lpu_bytes_per_second, Fraction(bridge.rack_bytes_per_second, bridge.rack_lpus))


def test_the_default_reading_of_the_rack_takes_3_2_terabytes_per_second() -> None:
    bridge = bridge_spec("spectrum-x")
    assert bridge.rack_bytes_per_second == bridge.rack_lpus * bridge.lpu_bytes_per_second == 32 * 10**11


def test_an_unknown_bridge_is_answered_with_the_closest_one() -> None:
    with pytest.raises(UnknownBridgeError, match=r"bridge: 'spectrumx'.*Did you mean spectrum-x\?"):
        bridge_spec("spectrumx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lpu_bytes_per_second": 0}, "lpu_bytes_per_second: bridge spectrum-x has 0, needs at least 1"),
        ({"rack_bytes_per_second": 0}, "rack_bytes_per_second: bridge spectrum-x has 0, needs at least 1"),
        ({"rack_bytes_per_second": 255}, "has 255 for 256 LPUs, needs at least 256"),
        ({"rack_lpus": 0}, "rack_lpus: .* has 0"),
        ({"latency_ns": -1}, "latency_ns: .* has -1, needs at least 0"),
    ],
)
def test_a_bridge_that_cannot_be_says_which_number(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(bridge_spec("spectrum-x"), **change)
