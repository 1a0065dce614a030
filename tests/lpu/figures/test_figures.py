"""Figures as values: where chips are drawn, what waits where, and that Plotly takes them."""

import numpy as np
import pytest
from programs import compiled

from compiler.options import CompileOptions
from compiler.program.program import Program
from fabric.catalog import rack_names
from fabric.rack import load_rack
from lpu.diff.sensitivity import sensitivity
from lpu.figures.bars import bounds_figure, levers_figure
from lpu.figures.drawing import Drawing, drawn, label
from lpu.figures.machine import machine_use
from lpu.figures.memory import live_blocks, live_curves, memory_figure, transient_figure
from lpu.figures.places import places
from lpu.figures.rack import rack_figure
from lpu.figures.schedule import rows_of_blocks, schedule_figure
from lpu.programs import report
from lpu.report.walk import block_chains


@pytest.mark.parametrize("rack", rack_names())
def test_no_two_chips_of_a_rack_are_drawn_at_one_place(rack: str) -> None:
    made = load_rack(rack)
    at = places(made.levels, made.chips)
    points = np.array(at)
    order = np.lexsort(points.T)
    gaps = np.abs(np.diff(points[order], axis=0)).max(axis=1)
    assert len({(round(x, 3), round(y, 3)) for x, y in at}) == len(at)
    assert gaps.min() > 0.1


@pytest.mark.parametrize("rack", ["lpx-x3", "lpx-x4", "lpx-x6", "lpx-x16"])
def test_racks_of_a_row_are_drawn_apart(rack: str) -> None:
    made = load_rack(rack)
    at = np.array(places(made.levels, made.chips))
    (level,) = [one for one in made.levels if one.name == "rack"]
    boxes = [(at[list(chips)].min(axis=0), at[list(chips)].max(axis=0)) for chips in level.groups]
    for i, (low, high) in enumerate(boxes):
        for other_low, other_high in boxes[:i]:
            assert (high < other_low).any() or (other_high < low).any()


def figures(program: Program) -> list[Drawing]:
    chains, cycles = block_chains(program, 80), program.manifest.cycles[80]
    found = report(program).occupancy[0]
    return [
        rack_figure(program, 80),
        schedule_figure(program, 80),
        memory_figure(program),
        transient_figure(program, 80, live_blocks(program, 80)),
        bounds_figure(found.bounds, cycles),
        levers_figure(chains, cycles),
        sensitivity(program, again=False).drawing(),
    ]


def test_plotly_takes_every_figure(piped_program: Program) -> None:
    pytest.importorskip("plotly")
    for one in figures(piped_program):
        assert len(drawn(one).data) == len(one.data) > 0
        assert all(len(row) == len(one.headers) for row in one.table)


def test_a_program_of_one_chip_has_figures_too() -> None:
    one = compiled("quad", CompileOptions(tp=1))
    assert all(drawing.data for drawing in figures(one))


def test_a_rack_shows_the_slots_and_the_stages_of_the_report(piped_program: Program) -> None:
    use = machine_use(piped_program, 80)
    found = report(piped_program).occupancy[0]
    assert int(use.slots.sum()) == sum(level.reserved_slots for level in found.links)
    assert use.busy["MXM planes"].tolist() == list(found.units[0].busy_cycles)
    assert use.stage.tolist() == [0, 0, 1, 1]


def test_the_curve_of_every_chip_has_its_peak_and_counts_from_the_first_cycle(piped_program: Program) -> None:
    live = live_blocks(piped_program, 80)
    curves = live_curves(live, 80)
    assert set(curves) == {str(i) for i, one in enumerate(piped_program.blocks) if len(one.columns[80])}
    for block, (call, _, found) in live.items():
        assert {call.chips[rank] for rank, _, _ in curves[str(block)]} == set(found)
        for rank, at, words in curves[str(block)]:
            assert max(words) == found[call.chips[rank]][1].max()
            assert 0 <= at[0] <= at[-1] <= piped_program.blocks[block].cycles[80]


def test_where_rows_are_left_out_the_critical_path_stays(piped_program: Program) -> None:
    rows = rows_of_blocks(piped_program, 80, most=60)
    assert any(block["left_out"] for block in rows["blocks"])
    for block in rows["blocks"]:
        spent = sum(block["t1"][row] - block["t0"][row] + wait for row, wait, _ in block["chain"])
        assert spent == block["cycles"]


def test_a_name_in_a_figure_is_text() -> None:
    assert label("<b>\x1b[1m\u202ename</b>") == "&lt;b&gt;\\x1b[1m\\u202ename&lt;/b&gt;"
    assert len(label("x" * 300)) == 60
