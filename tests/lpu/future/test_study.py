import json
from dataclasses import replace

import networkx as nx
import pytest
from beside import assert_same, compiled
from shapes import SMALL

from fabric.catalog import bridge_spec, chip_spec, rack_names, rack_spec
from fabric.rack import load_rack
from lpu import api
from lpu.check.check import check, require
from lpu.cli import app as cli
from lpu.energy.energy import step_energy
from lpu.future.machines import OPTICS_PJ_PER_BIT, machines
from lpu.future.study import FutureStudy, OnMachine, link_joules
from lpu.report.words import label_of

pytestmark = pytest.mark.slow  # every group of an irregular rack is routed by itself
RACKS = sorted({one.rack for one in machines().values()} - {"lpx"})


@pytest.fixture(scope="module")
def found() -> FutureStudy:
    return api.machines("llama-tiny", context=128, tp=4)


def point(found: FutureStudy, name: str) -> OnMachine:
    return next(one for one in found.points if one.name == name)


def test_the_machines_that_were_announced_are_there_each_with_what_it_refuses() -> None:
    assert {"lp35", "lp40", "feynman", "optics", "boardfly", "wafer"} <= machines().keys()
    for one in machines().values():
        assert one.refuses
        assert one.source
        assert one.rack in rack_names()
        assert one.bridge is None or bridge_spec(one.bridge)
        assert set(one.optical) <= {level.name for level in rack_spec(one.rack).levels}


@pytest.mark.parametrize("name", RACKS)
def test_a_number_of_a_future_rack_says_that_it_is_speculative_unless_it_was_published(name: str) -> None:
    spec = rack_spec(name)
    assert name.startswith("future-")
    for source in spec.sources:
        assert source.source.startswith("speculative: ") == (source.confidence == "assumed")
    if spec.chip != "lp30":
        assert all(source.source.startswith("speculative: ") for source in chip_spec(spec.chip).sources)
        assert label_of(spec.chip) == "speculative projection"


def test_lp35_runs_fp8_as_lp30_does_and_4_bits_install_in_half(found: FutureStudy) -> None:
    assert point(found, "lp35").cycles == found.points[0].cycles
    assert chip_spec("lp35-4bit").plane_bytes_per_cycle == 2 * chip_spec("lp30").plane_bytes_per_cycle
    assert point(found, "lp35-4bit").cycles <= found.points[0].cycles


def test_faster_lanes_help_and_light_costs_its_hops(found: FutureStudy) -> None:
    today = found.points[0].cycles
    assert point(found, "lp40").cycles < today
    assert point(found, "optics").cycles >= today
    assert point(found, "wafer").cycles != today


def test_a_bridge_of_micrometres_is_compared_with_mode_afd_over_todays(found: FutureStudy) -> None:
    one = point(found, "feynman")
    assert one.cycles == 0
    assert one.against == "lpx, spectrum-x"
    hops = 2 * 4  # llama-tiny has two layers, each crosses twice
    saved = one.before - one.seconds
    assert 0 < saved <= hops * 4.1e-6 * 2


def test_what_is_found_is_a_compiled_program_of_that_machine(found: FutureStudy) -> None:
    program = api.compile("llama-tiny", rack="future-boardfly", context=128, tp=4).program
    assert point(found, "boardfly").cycles == program.manifest.cycles[128]


def test_links_cost_what_the_step_says_and_light_has_its_own_price() -> None:
    rack = load_rack("future-optics")
    program = api.compile("llama-tiny", rack=rack, context=128, tp=16).program
    (term,) = (one for one in step_energy(program, 128).terms if one.name == "links")
    copper, light = link_joules(program, rack, 128), link_joules(program, rack, 128, ["tray", "rack"])
    assert copper.mid == pytest.approx(term.joules.mid)
    assert light.mid == pytest.approx(term.count * OPTICS_PJ_PER_BIT[1] * 8e-12)
    assert copper.mid < link_joules(program, rack, 128, ["rack"]).mid < light.mid


@pytest.mark.parametrize(("name", "degree", "diameter"), [("future-wafer", 4, 30), ("future-boardfly", 6, 7)])
def test_topologies_are_those_that_they_are_named_after(name: str, degree: int, diameter: int) -> None:
    graph = load_rack(name).graph()
    assert max(dict(graph.out_degree()).values()) <= degree + 2
    assert nx.diameter(graph) <= diameter
    if name == "future-wafer":
        assert nx.diameter(graph) == diameter
        assert sorted(set(dict(graph.out_degree()).values())) == [2, 3, 4]


@pytest.mark.parametrize("rack", ["future-wafer", "future-lp40"])
def test_bits_on_a_future_rack_are_those_of_the_model(rack: str) -> None:
    step, program = compiled(SMALL, rack, contexts=(64,), tp=4, pp=1)
    require(check(program, 64))
    assert_same(step, program, [[0], [1], [63]])


def test_the_command_line_prints_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "llama-tiny", "--machine", "lp35,lp40", "--context", "128", "--tp", "4"]
    assert cli.main([*words, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert [one["machine"] for one in body["points"]] == ["lpx", "lp35", "lp40"]
    assert body["points"][1]["kind"] == "speculative, exact for the stated machine"
    assert cli.main(words) == 0
    assert "refused   NVFP4 weights: no format of the numbers contract" in capsys.readouterr().out
    assert cli.main(["sweep", "llama-tiny", "--machine", "lp41"]) == 2
    assert "Did you mean lp4" in capsys.readouterr().err
    assert cli.main(["sweep", "llama-3.1-405b", "--machine", "lp40"]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_machine_that_has_no_program_is_a_line_with_the_reason() -> None:
    small = replace(machines()["lp40"], rack="quad", name="small")
    from compiler.options import CompileOptions
    from lpu.future.study import study
    from lpu.inputs.open import open_model

    found = study(open_model("llama-3.1-8b", context=128), [small], CompileOptions(tp=8))
    assert found.points[1].error
    assert "failed" in found.notes()[-2]
    assert found.notes()[-1].startswith("caution     served systems of the older chip took 2.4 x")
