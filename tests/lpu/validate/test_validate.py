import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.lower.rows import Kernels
from compiler.program.isa import Op
from compiler.route.route import Router
from compiler.schedule.list_schedule import dependencies, schedule
from fabric.catalog import rack_spec
from fabric.topology import Ports
from lpu import api
from lpu.cli import app as cli
from lpu.inputs.document import FileError
from lpu.validate import validate as validate_module
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.tsp import all_reduce, constants, hops, matmul_fp16, resnet50_cycles, topology_units
from lpu.validate.cases.tsp.gemm import (
    Gemm,
    PlaneSplit,
    best_split,
    gemm_rows,
    ideal_cycles,
    plane_chip,
    scheduled_cycles,
)
from lpu.validate.cases.tsp.hops import vector_cycles
from lpu.validate.cases.tsp.machine import PublishedMachine, catalog_machine
from lpu.validate.cases.tsp.resnet50 import layers
from lpu.validate.validate import CASES, validate

MACHINE = catalog_machine()
ROOT = Path(__file__).parents[3]


def with_chip(**numbers: int) -> PublishedMachine:
    return replace(MACHINE, chip=MACHINE.chip.with_numbers("a test", **numbers))


def with_hop(ns: int) -> PublishedMachine:
    levels = tuple(replace(level, hop_ns=ns) for level in MACHINE.spec.levels)
    return replace(MACHINE, spec=replace(MACHINE.spec, levels=levels))


def with_ring(**changes: Any) -> PublishedMachine:
    node, ring = MACHINE.spec.levels
    return replace(MACHINE, spec=replace(MACHINE.spec, levels=(node, replace(ring, **changes))))


def failed(machine: PublishedMachine, case: int) -> list[str]:
    return [point.name for point in validate(case, machine).points if point.passed is False]


def point(modelled: int | float, at_least: bool = False) -> PublishedPoint:
    return PublishedPoint(
        case=0,
        name="p",
        kind="anchor",
        unit="u",
        published=100,
        modelled=modelled,
        tolerance_percent=2,
        at_least=at_least,
    )


@pytest.mark.slow
def test_all_cases_pass_and_each_has_a_verdict() -> None:
    found = validate()
    assert found.passed
    assert [case.number for case in found.cases] == [1, 4, 5, 6, 7, 8, 9, 11]
    for case in CASES:
        assert any(p.passed for p in found.points if p.case == case.number)
    assert {p.kind for p in found.points if p.passed is None} == {"shown"}
    assert {one.case for one in found.fitted} == {p.case for p in found.points if p.kind == "fit"}


def test_a_point_is_judged_on_both_sides_and_a_limit_on_one() -> None:
    assert [point(m).passed for m in (97.9, 98, 102, 102.1)] == [False, True, True, False]
    assert [point(m, at_least=True).passed for m in (97.9, 98, 200)] == [False, True, True]
    assert point(99).error_percent == pytest.approx(-1)


@pytest.mark.parametrize("slot", [26, 28])
def test_another_link_rate_breaks_the_bandwidths_and_no_diameter(slot: int) -> None:
    wrong = failed(with_chip(slot_cycles=slot), 6)
    assert len(wrong) == 6
    assert not any("diameter" in name for name in wrong)


@pytest.mark.parametrize(
    ("ring", "broken"),
    [
        ({"ports": "mirror"}, "diameter, 136 chips"),
        ({"kind": "line"}, "diameter, 72 chips"),
        ({"links": 3}, "links of one chip, both ways"),
        ({"reach": 3}, "bisection, 72 chips"),
    ],
)
def test_another_wiring_breaks_a_topology_unit(ring: dict[str, Any], broken: str) -> None:
    assert broken in failed(with_ring(**ring), 6)


def test_topology_units_agree_with_the_counting_of_node_pairs() -> None:
    """Nodes up to 4 apart have 4 links: 10, 6, 3 and 1 pairs past 0 to 3 dead nodes, 20 across 4 from 5."""
    large = MACHINE.rack(17)
    assert [topology_units.lanes_past(large, dead) for dead in range(5)] == [40, 24, 12, 4, 0]
    assert topology_units.bisection_lanes(MACHINE.rack(9)) == 80
    assert topology_units.chip_lanes(large) == 11


def test_both_port_rules_reach_72_chips_in_three_hops() -> None:
    """So that diameter is no evidence for the rule, and not a fit either."""
    rules: tuple[Ports, ...] = ("mirror", "halves")
    assert [topology_units.diameter(with_ring(ports=rule).rack(9)) for rule in rules] == [3, 3]


def test_another_hop_breaks_hops_and_the_all_reduce() -> None:
    assert failed(with_hop(310), 5) == ["hop SRAM to SRAM, groqrack-72"]
    assert failed(with_hop(400), 4) == ["one of its three phases", "all-reduce of a vector, 8 chips"]
    assert "a hop is no shorter than its wire" in failed(with_hop(230), 5)


def test_a_vector_takes_its_slot_and_one_hop() -> None:
    assert vector_cycles(MACHINE.node()) == 27 + 270


def test_an_all_reduce_of_eight_is_three_times_slot_hop_and_addition() -> None:
    """By hand: 27 cycles of slot, 270 of hop, 1 of addition and 20 until its result is there."""
    assert all_reduce.all_reduce_cycles(MACHINE.node()) == 3 * (27 + 270 + 1 + 20)
    assert all_reduce.all_reduce_cycles(MACHINE.node(), chips=2) == 27 + 270 + 1 + 20


def test_the_fitted_constants_are_the_best_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def worst(case: int, name: str) -> float:
        (one,) = (p for p in validate(case, MACHINE).points if p.name == name)
        return abs(one.error_percent)

    for module, name, case, figure in (
        (all_reduce, "ALL_REDUCE_SOFTWARE_NS", 4, "one of its three phases"),
        (resnet50_cycles, "INFERENCE_OVERHEAD_CYCLES", 1, "ResNet-50 batch 1"),
    ):
        best, value = worst(case, figure), getattr(constants, name)
        for step in (-2, 2):
            monkeypatch.setattr(module, name, value + step)
            assert worst(case, figure) > best
        monkeypatch.undo()


def test_resnet50_has_its_54_layers_and_its_published_work() -> None:
    found = layers()
    assert len(found) == 54
    assert (
        sum(gemm.macs for _, gemm in found) == 4_089_184_256
    )  # 4.09 GMAC, the version with stride in the 3 x 3
    weights = sum(gemm.inner * gemm.columns for _, gemm in found)
    assert weights == 25_502_912  # 25.56 M parameters without norms and biases


def test_another_fill_breaks_resnet50() -> None:
    assert failed(with_chip(mxm_fill_cycles=70), 1) == ["ResNet-50 batch 1"]


@pytest.mark.parametrize(
    "machine",
    [with_chip(mxm_fill_cycles=8_000), with_chip(sram_bytes_per_cycle=880)],
    ids=["a drain 8000 cycles later", "installs 64 times slower"],
)
def test_a_slower_drain_or_install_breaks_the_utilisation(machine: PublishedMachine) -> None:
    assert "N = 1601, the worst of all" in failed(machine, 7)


def test_utilisation_falls_below_80_percent_just_under_the_published_widths() -> None:
    """Five tiles of 320 columns begin at N = 1281: the published range leaves out what is worse."""
    cycles = scheduled_cycles(
        Gemm(rows=2304, inner=4096, columns=1281, bytes_per_weight=2),
        PlaneSplit(row_parts=2, chunks=1),
        MACHINE.node(),
    )
    gemm = Gemm(rows=2304, inner=4096, columns=1281, bytes_per_weight=2)
    assert ideal_cycles(gemm, MACHINE.chip) / cycles < 0.8


def test_short_chunks_of_rows_are_no_slower_than_whole_streams() -> None:
    node, gemm = MACHINE.node(), Gemm(rows=2304, inner=4096, columns=1601, bytes_per_weight=2)
    whole, short = (scheduled_cycles(gemm, PlaneSplit(row_parts=2, chunks=n), node) for n in (1, 48))
    assert short < whole


def test_fp16_takes_planes_in_pairs_at_a_quarter_of_the_rate() -> None:
    gemm = Gemm(rows=320, inner=320, columns=320)
    assert plane_chip(MACHINE.chip, 2).planes == 2
    assert ideal_cycles(gemm, MACHINE.chip) == 80
    assert ideal_cycles(replace(gemm, bytes_per_weight=2), MACHINE.chip) == 320


def test_a_product_by_hand() -> None:
    """400 x 320 x 320 on four planes: 100 rows past one tile each, 100 to drain, 64 of fill."""
    gemm, node = Gemm(rows=400, inner=320, columns=320), MACHINE.node()
    assert scheduled_cycles(gemm, PlaneSplit(row_parts=4, chunks=1), node) == 100 + 100 + 64
    assert best_split(gemm, node) == (PlaneSplit(row_parts=4, chunks=2), 50 + 50 + 50 + 64)


def test_products_wait_for_the_drain_of_their_accumulator_and_drains_for_their_products() -> None:
    chip = MACHINE.chip.with_numbers(accumulators=1)
    kernels = Kernels()
    rows = gemm_rows(Gemm(rows=160, inner=640, columns=640), PlaneSplit(row_parts=2, chunks=2), chip, kernels)
    times = schedule(rows, kernels, Router(MACHINE.node(), (0,)), chip, 40)
    for before, after in dependencies(rows, kernels):
        assert times.t0[after] >= times.t1[before]
    products, drains = rows.op == Op.MM, rows.op == Op.WB
    assert (products.sum(), drains.sum()) == (2 * 2 * 2 * 2, 2 * 2 * 2)
    for plane in range(chip.planes):
        mine = np.flatnonzero(products & (rows.pin == plane))
        assert (np.diff(np.sort(times.t0[mine])) >= 40).all()
    # One accumulator: a plane's second chain begins after its first was drained.
    assert times.cycles == 2 * (2 * 40 + 40 + 64)


def test_no_schedule_is_more_than_fully_busy() -> None:
    shares = matmul_fp16.utilisations(MACHINE.node(), 2)
    assert len(shares) == 3500 - 1376 + 1
    assert max(shares.values()) < 1


def test_the_host_model_follows_the_clock_of_the_chip() -> None:
    assert "compute, 900 cycles" in failed(with_chip(clock_hz=901_000_000), 11)


def test_an_unknown_case_is_named_with_the_cases_there_are() -> None:
    with pytest.raises(FileError, match=r"--case 3.*1, 4, 5, 6, 7, 8, 9, 11"):
        validate(3)


@pytest.mark.slow
def test_the_verb_prints_every_point_and_every_fitted_constant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate"]) == 0
    out = capsys.readouterr().out
    assert out.count(" pass") == sum(p.passed is True for p in api.validate().points)
    assert "FAIL" not in out
    for name in ("INFERENCE_OVERHEAD_CYCLES", "ALL_REDUCE_SOFTWARE_NS", "slot_cycles", "hop_ns", "ports"):
        assert f"{name} = " in out
    assert "error 0 by construction" in out
    assert "mxm_fill_cycles" in out.split("assumed")[1]


def test_the_json_of_the_verb_has_a_schema_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "--case", "6", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["schema"], body["passed"]) == ("lpu-validate/2", True)
    assert {p["case"] for p in body["points"]} == {6}
    keys = "case point role unit published modelled at_least error_percent tolerance_percent band passed"
    assert set(body["points"][0]) == set(keys.split())
    assert set(body["constants"]) == {"fitted", "published", "derived", "assumed"}
    assert set(body["constants"]["fitted"][0]) == {"name", "value", "case", "figure", "where"}


@pytest.mark.parametrize(
    ("machine", "case"),
    [
        (lambda: with_chip(slot_cycles=28), "6"),
        (lambda: with_hop(310), "5"),
        (lambda: with_chip(mxm_fill_cycles=8_000), "7"),
    ],
)
def test_a_point_beyond_its_tolerance_is_exit_code_1(
    machine: Callable[[], PublishedMachine],
    case: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(validate_module, "catalog_machine", machine)
    assert cli.main(["validate", "--case", case]) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "BEYOND" in out
    assert cli.main(["validate", "--case", case, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_a_wrong_case_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "--case", "12"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "--case 12" in err


@pytest.mark.slow
def test_the_page_names_every_number_that_was_fitted() -> None:
    page = (ROOT / "docs/validation.md").read_text()
    for one in validate().fitted:
        assert f"| {one.case}" in page.split(one.name.split()[-1])[1]


def test_the_verb_has_help_json_and_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(option in out for option in ("--case", "--json", "--debug"))


def test_the_ladder_to_nine_racks_is_met_and_a_slower_step_is_not() -> None:
    spec = rack_spec(hops.ROW)
    assert [point.passed for point in hops.ladder(spec)] == [True] * 7
    slower = replace(spec, levels=(*spec.levels[:2], replace(spec.levels[2], hop_ns=500)))
    assert [point.passed for point in hops.ladder(slower)] == [True] * 3 + [False] * 4
