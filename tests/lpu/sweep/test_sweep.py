import json
from dataclasses import replace

import numpy as np
import pytest

from compiler.options import CompileOptions
from fabric.catalog import chip_spec
from fabric.rack import Rack, load_rack
from lpu import api
from lpu.cli import app as cli
from lpu.inputs.document import FileError
from lpu.inputs.files import ModelFile
from lpu.sweep.keys import changed, default, keys
from lpu.sweep.sweep import Sweep, parse_sweeps

TINY = ModelFile(model="llama-tiny", context=(32,))
PAIR = CompileOptions(tp=2, pp=1)


def swept(rack: str, options: CompileOptions = PAIR, **values: tuple[object, ...]) -> Sweep:
    named = {key.replace("__", "."): some for key, some in values.items()}
    return api.sweep(TINY, named, rack=rack, options=options)


def test_every_key_of_every_level_can_be_changed_and_says_that_it_is_assumed() -> None:
    rack = load_rack("lpx")
    for key in keys(rack):
        before = default(rack, key)
        values = {
            "weight_install_frac": "0.5",
            "lanes": "2",
            "planes": "6",
            "forward_ns": "7",
            "sram_bytes": "320000",
        }
        value = values.get(key, str(int(float(before)) - 1))
        after = changed(rack, key, value)
        marked = {s.field for s in (*after.chip.sources, *after.sources) if s.source == "set by --sweep"}
        assert marked, key
        if key not in ("lanes", "hop_ns", "planes"):
            assert marked == {key}
            assert float(default(after, key)) == float(value)
        assert changed(rack, key, before) is rack


@pytest.mark.parametrize(("planes", "name"), [(6, "lp30-p6"), (8, "lp30-p8")])
def test_planes_of_an_lp30_are_the_preset_with_the_published_rates(planes: int, name: str) -> None:
    rack = changed(load_rack("lpx"), "planes", str(planes))
    assert rack.chip.numbers() == chip_spec(name).numbers()
    assert np.array_equal(rack.links.hop_cycles, load_rack("lpx", name).links.hop_cycles)


def test_planes_of_another_chip_change_alone() -> None:
    rack = load_rack("pair", "tiny")
    after = changed(rack, "planes", "4")
    assert after.chip.numbers() == rack.chip.numbers() | {"planes": 4}


def test_hop_ns_scales_every_level_by_the_factor_of_the_first() -> None:
    after = changed(load_rack("lpx-x4"), "hop_ns", "175")
    assert [level.hop_ns for level in after.spec.levels] == [175, 175, 200]
    assert after.spec.forward_ns == 50


def test_lanes_is_a_factor_and_a_level_has_its_own() -> None:
    rack = load_rack("lpx")
    assert np.array_equal(changed(rack, "lanes", "0.5").links.lanes * 2, rack.links.lanes)
    assert changed(rack, "lanes", "2").chip.lanes == 2 * rack.chip.lanes
    assert [level.lanes for level in changed(rack, "tray.lanes", "4").spec.levels] == [4, 4]


def explicit() -> Rack:
    rack = load_rack("ring-8")
    return (
        replace(rack, spec=replace(rack.spec, levels=(), chips=2, links=((0, 1, 2, 300),))) if rack else rack
    )


def test_a_rack_of_single_links_has_hops_and_lanes_too() -> None:
    rack = explicit()
    source = replace(rack.spec.sources[0], field="links")
    forward = next(s for s in rack.spec.sources if s.field == "forward_ns")
    rack = replace(rack, spec=replace(rack.spec, sources=(forward, source)))
    assert changed(rack, "hop_ns", "600").spec.links == ((0, 1, 2, 600),)
    assert changed(rack, "lanes", "1.5").spec.links == ((0, 1, 3, 300),)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("plane", "4", "is no number of lpx. It has clock_hz"),
        ("desk.lanes", "4", "is no number of lpx"),
        ("planes", "5", "is known with 4, 6, 8 planes"),
        ("planes", "x", "is no number"),
        ("hop_ns", "0", "needs at least 1"),
        ("hop_ns", "350.5", "needs a whole number"),
        ("lanes", "0.3", "needs a whole number"),
        ("lanes", "0", "needs at least 1"),
        ("tray.lanes", "16", "its links take 144 lanes"),
        ("weight_install_frac", "2", "at most 1"),
        ("weight_install_frac", "1/0", "is no number"),
        ("mxm_fill_cycles", "-1", "needs at least 0"),
    ],
)
def test_what_a_rack_cannot_have_is_one_clear_line(key: str, value: str, text: str) -> None:
    with pytest.raises(FileError, match=r"^sweep: ") as found:
        changed(load_rack("lpx"), key, value)
    assert text in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "texts", [["planes"], ["=4"], ["planes="], ["planes=4,,6"], ["planes=4", "planes=6"]]
)
def test_a_sweep_is_a_key_with_values(texts: list[str]) -> None:
    with pytest.raises(FileError, match=r"^sweep: "):
        parse_sweeps(texts)


def test_a_sweep_shows_the_default_its_own_value_and_the_band() -> None:
    found = swept("pair", hop_ns=(175, 350, 700))
    took = [point.microseconds for point in found.points]
    assert took[0] < took[1] < took[2]
    assert took[1] == found.defaults[0].microseconds
    (band,) = found.bands()
    assert (band.least_microseconds, band.most_microseconds) == (took[0], took[2])
    assert all(point.quality >= 1 for point in found.points)
    assert all(point.tp == 2 for point in found.points)


def test_the_rows_of_a_point_are_those_of_the_changed_machine() -> None:
    point = swept("pair", tray__lanes=(4,)).points[0]
    rack = changed(load_rack("pair"), "tray.lanes", "4")
    program = api.compile(TINY, rack=rack, options=PAIR).program
    assert point.cycles == program.manifest.cycles[32]
    (lanes,) = (number for number in program.manifest.sources if number.field == "tray.lanes")
    assert (lanes.confidence, lanes.source) == ("assumed", "set by --sweep")


def test_the_layout_is_searched_again_at_every_point() -> None:
    """At llama-tiny's size one chip is fastest; where its SRAM is slow enough, several share the weights."""
    found = swept("quad", CompileOptions(), sram_bytes_per_cycle=(102_400, 80))
    assert found.points[0].tp == 1
    assert found.points[1].tp > 1


def test_a_machine_that_cannot_hold_the_model_is_a_point_with_its_reason() -> None:
    found = swept("pair", sram_bytes=(32_000, 500_000_000))
    assert "a chip has" in found.points[0].error
    assert found.points[1].cycles > 0
    assert found.bands()[0].failed == 1
    assert "cannot be compiled" in str(found)


def lpu(*words: str) -> int:
    return cli.main(["compile", "llama-tiny", "--rack", "pair", "--context", "32", "--tp", "2", *words])


@pytest.mark.slow
def test_the_command_prints_a_table_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sweep", "planes=4,6", "--sweep", "vxm_latency_cycles=8"]
    assert lpu(*words) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:2] == ["number", "value"]
    assert "the rates are the same" in out
    assert lpu(*words, "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert body["schema"] == "lpu-sweep/1"
    assert [point["key"] for point in body["points"]] == ["planes", "planes", "vxm_latency_cycles"]
    assert body["points"][0]["of_default"] == 1
    assert body["points"][2]["of_default"] < 1


@pytest.mark.parametrize(
    "words", [["--sweep", "plane=4"], ["--sweep", "planes=x"], ["--sweep", "planes=4", "-o", "there"]]
)
def test_the_command_refuses_on_one_line(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert lpu(*words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: sweep: ")
