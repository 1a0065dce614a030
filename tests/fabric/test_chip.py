from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from fabric.catalog import UnknownChipError, chip_names, chip_spec
from fabric.chip import check_sources, stated


@pytest.mark.parametrize("name", chip_names())
def test_every_number_of_every_chip_has_a_source(name: str) -> None:
    chip = chip_spec(name)
    check_sources(chip.name, list(chip.numbers()), chip.sources)
    assert all(source.source for source in chip.sources)
    assert {source.confidence for source in chip.sources} <= {"A", "B", "C", "D", "R", "assumed"}


@pytest.mark.parametrize("name", ["lp30", "lp30-p6", "lp30-p8"])
def test_every_lp30_preset_gives_the_published_rates_exactly(name: str) -> None:
    chip = chip_spec(name)
    assert 2 * chip.planes * 320 * 320 * chip.clock_hz == 1_200_000_000_000_000
    assert chip.sram_bytes_per_cycle * chip.clock_hz == 150_000_000_000_000
    assert Fraction(chip.lanes * 320 * chip.clock_hz * 2, chip.slot_cycles) == 2_500_000_000_000
    assert chip.sram_bytes == 500_000_000
    assert chip.plane_bytes_per_cycle == 25_600


def test_lp30_p4_is_another_name_of_lp30() -> None:
    assert chip_spec("lp30-p4") is chip_spec("lp30") or chip_spec("lp30-p4") == chip_spec("lp30")


def test_groqchip1_installs_all_weights_in_forty_cycles_and_a_vector_takes_thirty_ns() -> None:
    chip = chip_spec("groqchip1")
    assert chip.plane_bytes_per_cycle * chip.planes * 40 == 4 * 320 * 320
    assert chip.sram_bytes == 220 * 2**20
    assert Fraction(chip.slot_cycles, chip.clock_hz) == Fraction(30, 10**9)


@pytest.mark.parametrize(("frac", "per_plane"), [(0.5, 12_800), (0.12, 3_072), (0.333, 8_525), (1e-4, 3)])
def test_the_install_rate_is_the_exact_product_rounded_to_the_nearest_byte(
    frac: float, per_plane: int
) -> None:
    assert chip_spec("lp30").with_numbers(weight_install_frac=frac).plane_bytes_per_cycle == per_plane


def test_a_changed_number_is_marked_as_assumed_and_the_others_keep_their_source() -> None:
    chip = chip_spec("lp30").with_numbers("sweep", sram_bytes=320_000)
    by_field = {source.field: source for source in chip.sources}
    assert (by_field["sram_bytes"].confidence, by_field["sram_bytes"].source) == ("assumed", "sweep")
    assert by_field["lanes"].confidence == "A"
    assert chip.sram_words == 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"planes": 0}, "planes: chip lp30 has 0, needs at least 1"),
        ({"vxm_latency_cycles": -1}, "vxm_latency_cycles: chip lp30 has -1, needs at least 0"),
        ({"weight_install_frac": 1.5}, "weight_install_frac: is 1.5"),
        ({"weight_install_frac": float("nan")}, "weight_install_frac: is nan"),
        ({"weight_install_frac": 1e-6}, "less than one byte"),
        ({"sram_bytes": 321}, "321 is not a multiple of the 320-byte word"),
    ],
)
def test_a_chip_that_cannot_be_says_which_number(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(chip_spec("lp30"), **change)


def test_a_missing_or_stray_source_is_named() -> None:
    chip = chip_spec("tiny")
    with pytest.raises(ValueError, match="clock_hz has 0 sources, needs 1"):
        check_sources("tiny", list(chip.numbers()), chip.sources[1:])
    with pytest.raises(ValueError, match="planes has 2 sources"):
        check_sources("tiny", list(chip.numbers()), (*chip.sources, chip.sources[1]))
    with pytest.raises(ValueError, match="a source for clock_hz, which tiny does not have"):
        check_sources("tiny", ["planes"], chip.sources[:2])
    assert [s.field for s in stated(["a", "b"], (), "my.yaml")] == ["a", "b"]


def test_an_unknown_chip_gets_the_closest_name() -> None:
    with pytest.raises(UnknownChipError, match="Did you mean lp30"):
        chip_spec("lp30p")
