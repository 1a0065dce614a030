"""A number of the machine ten percent off: the figures are those of programs that were compiled with it."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from compiler.program.program import Program
from fabric.catalog import chip_spec, rack_spec
from fabric.rack import Rack, build_rack, load_rack
from fabric.topology import RackSpec
from lpu import api
from lpu.diff import sensitivity as exact
from lpu.diff.moved import MovedNumber, moved, numbers_of
from lpu.diff.sensitivity import Sensitivity, with_number

SOME = ("tray.hop_ns", "clock_hz", "vxm_latency_cycles", "weight_install_frac", "lane_reduce_cycles")


def compiled(rack: Any = "quad") -> Program:
    return api.compile("llama-tiny", rack=rack, tp=2, context=80, check=False, prove=False).program


program = cache(compiled)


def some(of: Program) -> dict[str, tuple[float, str, str]]:
    """Five of the fourteen numbers: each is compiled twice."""
    return {name: value for name, value in numbers_of(of).items() if name in SOME}


@cache
def found() -> Sensitivity:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "numbers_of", some)
        return api.sensitivity(program())


def number(name: str, of: Sensitivity | None = None) -> MovedNumber:
    return next(one for one in (of or found()).numbers if one.number == name)


def quad(hop_ns: int = 350, **chip: int) -> Rack:
    spec = rack_spec("quad")
    (tray,) = spec.levels
    return build_rack(
        replace(spec, levels=(replace(tray, hop_ns=hop_ns),)), replace(chip_spec("lp30"), **chip)
    )


@pytest.mark.parametrize(
    ("name", "rack"),
    [("tray.hop_ns", lambda: quad(hop_ns=385)), ("clock_hz", lambda: quad(clock_hz=1_611_328_125))],
)
def test_a_figure_is_that_of_the_program_with_this_number(name: str, rack: Callable[[], Rack]) -> None:
    manifest = compiled(rack()).manifest
    one = number(name)
    assert one.how == "exact"
    assert one.larger.cycles == manifest.cycles[80]
    time = manifest.cycles[80] / manifest.clock_hz
    before = program().manifest.cycles[80] / program().manifest.clock_hz
    assert one.larger.share == pytest.approx(time / before - 1)


def test_numbers_come_with_kind_and_source_the_one_that_changes_most_first() -> None:
    numbers = found().numbers
    assert {one.number for one in numbers} == set(SOME)
    assert [one.most for one in numbers] == sorted((one.most for one in numbers), reverse=True)
    assert number("clock_hz").kind == "assumed"
    assert "not published" in number("clock_hz").source
    assert found().how.startswith("exact for the stated machine")
    assert "clock_hz (assumed, exact)" in found().plot().data[0]["y"]
    assert len(found().to_dataframe()) == 2 * len(SOME)
    assert found().to_json()["numbers"][0]["cycles"] > 0


def test_what_no_chip_can_have_has_a_reason_and_no_figure() -> None:
    larger = number("weight_install_frac").larger
    assert larger.share is None
    assert larger.remark == "weight_install_frac: is 1.1, must be above 0 and at most 1"


def test_by_the_critical_path_it_is_modelled_and_near() -> None:
    near = api.sensitivity(program(), again=False)
    assert near.how.startswith("modelled")
    for name in set(SOME) - {"weight_install_frac"}:
        assert number(name, near).how == "modelled"
        assert number(name, near).larger.share == pytest.approx(number(name).larger.share, abs=5e-3)
    ports = number("activation_ports", near)
    assert (ports.how, ports.larger.share) == ("not known", None)


def test_of_many_rows_it_is_modelled_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "FEW_ROWS", 10)
    assert api.sensitivity(program()).how.startswith("modelled")


def test_a_program_that_is_not_what_it_says_it_was_made_of_is_not_called_exact() -> None:
    manifest = program().manifest
    other = replace(program(), manifest=replace(manifest, cycles={80: manifest.cycles[80] + 1}))
    said = api.sensitivity(other)
    assert "not compiled again" in said.how
    assert f"it takes {manifest.cycles[80]} cycles, not {manifest.cycles[80] + 1:,}" in said.how
    assert {one.how for one in said.numbers} == {"modelled", "not known"}


def test_links_that_a_rack_states_alone_move_together() -> None:
    spec = RackSpec(
        name="three",
        chip="lp30",
        forward_ns=50,
        chips=3,
        links=((0, 1, 4, 300), (1, 2, 8, 600)),
        sources=tuple(
            replace(one, field=field)
            for field in ("forward_ns", "links")
            for one in rack_spec("quad").sources[:1]
        ),
    )
    rack = with_number(build_rack(spec, load_rack("quad").chip), "links.hop_ns", moved(300, 1))
    assert rack.spec.links == ((0, 1, 4, 330), (1, 2, 8, 660))
