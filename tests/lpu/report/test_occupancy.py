import json
from dataclasses import replace

import pytest

from compiler.analyse.bounds import bounds, busy_units, critical_path
from compiler.analyse.dataflow import edges, waits
from compiler.analyse.holds import holds, is_transfer
from compiler.program.isa import Op
from compiler.program.manifest import LevelWiring, Link
from compiler.program.program import Program
from lpu.report.occupancy import kind_of, occupancy
from lpu.report.traffic import link_levels


def test_block_kinds_and_hand_overs_add_up_to_the_step(pair_program: Program) -> None:
    report = occupancy(pair_program, 80)
    assert sum(block.cycles for block in report.blocks) == report.cycles
    assert {block.kind for block in report.blocks} == {"embed", "layers", "head", "hand-over"}


def test_a_pipeline_pays_hand_overs_and_one_group_does_not(
    pair_program: Program, piped_program: Program
) -> None:
    def cycles(program: Program) -> int:
        return next(b.cycles for b in occupancy(program, 80).blocks if b.kind == "hand-over")

    assert cycles(pair_program) == 0
    assert cycles(piped_program) > 0


def test_busy_cycles_are_the_holds_of_the_rows(pair_program: Program) -> None:
    columns, report = pair_program.expand(80), occupancy(pair_program, 80)
    hold = holds(columns, pair_program.manifest)
    compute = ~is_transfer(columns.op)
    assert sum(sum(unit.busy_cycles) for unit in report.units) == int(hold[compute].sum())
    assert all(0 < unit.busy_share <= unit.active_share < 1 for unit in report.units)


def test_no_unit_is_busier_than_the_step_is_long(pair_program: Program) -> None:
    report = occupancy(pair_program, 80)
    for unit in report.units:
        assert max(unit.busy_cycles) <= unit.units * report.cycles


def test_holds_reach_no_further_than_the_results(pair_program: Program) -> None:
    columns = pair_program.expand(80)
    hold = holds(columns, pair_program.manifest)
    assert (hold > 0).all()
    assert (columns.t0 + hold <= columns.t1).all()


def test_moved_bytes_are_the_words_of_the_transfers(pair_program: Program) -> None:
    columns, report = pair_program.expand(80), occupancy(pair_program, 80)
    words = int(columns.n[is_transfer(columns.op)].sum()) * pair_program.manifest.rows
    assert sum(link.moved_bytes for link in report.links) == 320 * words
    for link in report.links:
        assert link.moved_bytes <= 320 * link.reserved_slots
        assert 0 < link.busiest_share <= 1


def test_weight_bytes_are_the_tiles_of_the_matmuls(pair_program: Program) -> None:
    columns = pair_program.expand(80)
    tiles = int(columns.n[columns.op == Op.MM].sum())
    assert occupancy(pair_program, 80).weight_bytes == tiles * 80 * 320


def test_no_bound_is_above_the_schedule(pair_program: Program, piped_program: Program) -> None:
    for program in (pair_program, piped_program):
        report = occupancy(program, 80)
        assert report.bounds == bounds(program, 80)
        assert all(0 < bound.cycles <= report.cycles for bound in report.bounds)
        assert report.quality >= 1


def test_no_bound_of_a_block_exceeds_its_length(piped_program: Program) -> None:
    manifest = piped_program.manifest
    for call in piped_program.calls:
        columns = piped_program.expand_call(call, 80)
        if len(columns):
            pairs = edges(columns, manifest.kernels, manifest.chip.planes, call.tag)
            chain = waits(columns, pairs)
            assert (columns.t0 - columns.t0.min() >= chain.head).all()
            cycles = piped_program.blocks[call.block].cycles[80]
            assert 0 < critical_path(columns, chain)[0] <= cycles
            assert 0 < busy_units(columns, chain, holds(columns, manifest), manifest) <= cycles


def test_a_longer_row_makes_the_critical_path_longer(pair_program: Program) -> None:
    manifest = pair_program.manifest
    call = next(call for call in pair_program.calls if call.name == "head")
    columns = pair_program.expand_call(call, 80)
    pairs = edges(columns, manifest.kernels, manifest.chip.planes, call.tag)
    before = critical_path(columns, waits(columns, pairs))[0]
    slower = replace(columns, t1=columns.t1 + 7 * (columns.op == Op.RSTAT))
    assert critical_path(slower, waits(slower, pairs))[0] == before + 7


def test_an_occupancy_fits_a_screen_and_is_plain_json(pair_program: Program) -> None:
    report = occupancy(pair_program, 80)
    assert "exact for the stated machine" in str(report)
    assert len(str(report).splitlines()) < 40
    body = json.loads(json.dumps(report.to_json()))
    assert (body["kind"], body["label"]) == ("exact for the stated machine", "projection")
    assert body["step_microseconds"] == pytest.approx(report.cycles * 1e6 / report.clock_hz)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("layers.3.ffn", "ffn"), ("head", "head"), ("layers.12", "layers"), ("block_7.mix2", "mix")],
)
def test_the_kind_of_a_block_is_its_name_without_numbers(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_a_link_belongs_to_the_innermost_level_that_holds_both_ends(pair_program: Program) -> None:
    manifest = replace(
        pair_program.manifest,
        chips=4,
        links=(Link(0, 1, 1, 1, 1), Link(1, 2, 1, 1, 1), Link(2, 3, 1, 1, 1)),
        levels=(
            LevelWiring("tray", "all-to-all", ((0, 1), (2, 3))),
            LevelWiring("rack", "line", ((0, 1, 2, 3),)),
        ),
    )
    assert link_levels(manifest).tolist() == [0, 1, 0]
