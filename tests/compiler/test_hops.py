from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from steps import llama

from compiler.errors import CapacityError, OptionError
from compiler.hops import compile_hops
from compiler.options import CompileOptions
from compiler.program.isa import COLUMNS, TAGS, Op
from compiler.program.manifest import HOPS, Hops, Message, ModelIdentity
from compiler.program.program import Program
from compiler.program.store import digest, hop_alone, load, save
from compiler.source import Source
from fabric.catalog import bridge_spec
from fabric.rack import Rack, load_rack
from lpu.check.check import check, require
from models.catalog import catalog
from models.step import family_step

TRAY, BRIDGE = load_rack("lpx-tray"), bridge_spec("spectrum-x")


def compiled(source: Source | None = None, rack: Rack = TRAY, **options: Any) -> Program:
    return compile_hops(source or llama(), rack, CompileOptions(**options), BRIDGE)[0]


def big(name: str, rows: int) -> Source:
    """A model of the catalog, for this many rows."""
    step = family_step(replace(catalog(name), ffn_down="fp16"), batch=rows, context=80)
    params, tokens, position, cache = step.inputs()
    return Source(
        step=step.fn,
        params=params,
        tokens=tokens,
        position=position,
        cache=cache,
        contexts=(80,),
        model=ModelIdentity(name=name),
    )


def test_equal_hops_share_one_template_and_lie_in_one_memory_image() -> None:
    program = compiled(llama(layers=5), tp=4)
    assert (len(program.blocks), len(program.calls)) == (1, 5)
    loads = program.loads()
    place = np.sort((loads.chip << 40) + loads.addr)
    assert len(np.unique(place)) == len(place) == 5 * len(program.blocks[0].loads)
    bases = [hop.base for hop in program.manifest.hops]
    cycles = program.manifest.hops[0].cycles
    assert bases == [i * cycles for i in range(5)]
    assert program.manifest.cycles == {1: 5 * cycles}


def test_a_hop_runs_from_the_first_line_taken_to_the_last_one_given() -> None:
    program = compiled(tp=4, layout="2d")
    columns, stated = hop_alone(program, 1).expand(HOPS), program.manifest.hops[1]
    takes, gives = columns.op == Op.TAKE, columns.op == Op.GIVE
    assert columns.t0.min() == columns.t0[takes].min() == 0
    assert columns.t1.max() == columns.t1[gives].max() == stated.cycles
    assert stated.inputs == Message(rows=1, width=256, wire="fp16")
    assert stated.outputs == Message(rows=1, width=256, wire="f32")


def test_a_hop_by_itself_is_the_same_rows_from_cycle_zero() -> None:
    program = compiled(tp=4)
    whole, alone = program.expand(HOPS), hop_alone(program, 1).expand(HOPS)
    base = program.manifest.hops[1].base
    mine = whole.take(np.flatnonzero(whole.t0 >= base))
    for name in COLUMNS + TAGS:
        shift = base if name in ("t0", "t1") else 0
        assert np.array_equal(getattr(mine, name), getattr(alone, name) + shift), name


def test_a_line_is_taken_once_and_by_a_chip_of_its_part_of_k() -> None:
    for layout, parts in (("column", 1), ("row", 4), ("2d", 2)):
        columns = hop_alone(compiled(llama(wide=1280), tp=4, layout=layout), 0).expand(HOPS)
        takes = columns.take(np.flatnonzero(columns.op == Op.TAKE))
        assert np.sort(takes.src3).tolist() == list(range(8))
        assert (takes.chip % parts == takes.src3 // 2 * parts // 4).all()


def test_two_lines_of_e4m3_cross_in_one_word() -> None:
    config = replace(catalog("llama-tiny"), hidden=800, ffn_down="fp8", ffn_up="fp16")
    step = family_step(config, batch=3, context=80)
    params, tokens, position, cache = step.inputs()
    source = Source(
        step=step.fn,
        params=params,
        tokens=tokens,
        position=position,
        cache=cache,
        contexts=(80,),
        model=ModelIdentity(),
    )
    columns = hop_alone(compiled(source, tp=1), 0).expand(HOPS)
    takes, gives = (columns.take(np.flatnonzero(columns.op == op)) for op in (Op.TAKE, Op.GIVE))
    assert takes.n.tolist() == [2, 2, 1]
    assert (takes.t1 - takes.t0).tolist() == [3 * 38] * 3
    assert (gives.t1 - gives.t0).sum() == 5 * 3 * 38


def test_the_search_for_a_tp_takes_the_shortest_hops() -> None:
    program = compiled()
    tried = {one.tp: one.cycles for one in program.manifest.search}
    assert program.manifest.options.tp == min(tried, key=lambda tp: tried[tp] or 0)
    assert program.manifest.cycles[1] == min(count for count in tried.values() if count)


def test_pp_spreads_the_hops_over_groups() -> None:
    program = compiled(llama(layers=4), tp=2, pp=4)
    assert [call.chips for call in program.calls] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert program.manifest.groups == ((0, 1), (2, 3), (4, 5), (6, 7))


def test_a_saved_program_of_hops_loads_equal(tmp_path: Path) -> None:
    program = compiled(tp=2)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    save(program, one)
    save(load(one), two)
    for name in ("manifest.json", "columns.npz"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert load(one).manifest == program.manifest


@pytest.mark.parametrize("change", [{"hops": ()}, {"host_slot": 1}])
def test_what_the_manifest_says_of_hops_is_in_the_digest(change: dict[str, Any]) -> None:
    program = compiled(tp=2)
    body = program.manifest.body
    assert isinstance(body, Hops)
    other = replace(program, manifest=replace(program.manifest, body=replace(body, **change)))
    assert digest(other) != program.manifest.digest == digest(program)


@pytest.mark.parametrize(
    "options",
    [{"objective": "throughput"}, {"placement": "annealing"}, {"cp": 2}],
    ids=lambda o: next(iter(o)),
)
def test_options_that_hops_have_no_use_for_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="means nothing for hops"):
        compiled(tp=4, **options)


def test_hops_that_do_not_fit_say_bytes_needed_and_available() -> None:
    small = replace(TRAY, chip=TRAY.chip.with_numbers("for a test", sram_bytes=400_000))
    with pytest.raises(CapacityError, match=r"layers.0.ffn: needs .* a chip has 0.4 MB. Raise --tp above 1"):
        compiled(rack=small, tp=1)
    small = replace(TRAY, chip=TRAY.chip.with_numbers("for a test", sram_bytes=704_000))
    with pytest.raises(CapacityError, match=r"the model needs 16 chips in groups of 2 .* the rack has 8"):
        compiled(llama(layers=8), rack=small, tp=2)


@pytest.mark.parametrize(
    ("model", "rack"),
    [
        pytest.param("llama-3.1-70b", "lpx", marks=pytest.mark.slow),
        pytest.param("llama-3.1-405b", "lpx-x4", marks=pytest.mark.slow),
    ],
)
def test_the_hops_of_large_models_share_one_template_and_are_legal(model: str, rack: str) -> None:
    """How long it takes: benchmarks/afd_70b.py."""
    program = compiled(big(model, 1), load_rack(rack), tp=8)
    require(check(program, HOPS))
    assert len(program.blocks) == 1


def test_the_last_layers_alone_have_hops() -> None:
    program, split = compile_hops(llama(layers=5), TRAY, CompileOptions(tp=4), BRIDGE, layers=2)
    assert [hop.name for hop in program.manifest.hops] == ["layers.3.ffn", "layers.4.ffn"]
    assert len(split.hops) == 2
    with pytest.raises(OptionError, match="--lpu-layers 6: the model has 5 layers, 1 to 5 of them can be"):
        compile_hops(llama(layers=5), TRAY, CompileOptions(tp=4), BRIDGE, layers=6)


def test_what_a_rack_does_not_hold_is_refused_with_the_layers_that_fit() -> None:
    with pytest.raises(CapacityError, match=r"needs? .*give --lpu-layers \d+: \d+ of 80 layers fit lpx-tray"):
        compile_hops(big("llama-3.1-70b", 1), TRAY, CompileOptions(tp=8), BRIDGE)
