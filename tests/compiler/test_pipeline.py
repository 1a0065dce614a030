from dataclasses import replace

import numpy as np
import pytest
from steps import llama

from compiler.errors import CapacityError, OptionError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.isa import COLUMNS, TAGS, Op
from compiler.program.program import Program
from compiler.route.reuse import Reuse
from fabric.rack import load_rack
from models.kv import KVFormat

TRAY = load_rack("lpx-tray")


def compiled(**options: object) -> Program:
    return compile_program(llama(), TRAY, CompileOptions(**options))  # pyright: ignore[reportArgumentType]


def test_equal_layers_share_one_template_and_expand_to_the_same_rows() -> None:
    program = compile_program(llama(layers=4), TRAY, CompileOptions(tp=4, pp=1))
    layers = [call for call in program.calls if call.name.startswith("layers.")]
    assert len(layers) == 4
    assert layers[0].block == layers[2].block != layers[1].block  # two residual buffers in turn
    assert layers[2].base[160] > layers[0].base[160]


@pytest.mark.parametrize("layout", ["column", "row", "2d"])
@pytest.mark.parametrize("pp", [1, 2])
def test_replicated_templates_are_row_by_row_what_every_block_scheduled_anew_gives(
    layout: str, pp: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = llama(layers=5)
    options = CompileOptions(tp=4, pp=pp, layout=layout)
    replicated = compile_program(source, TRAY, options)
    monkeypatch.setattr(Reuse, "find", lambda *_: None)
    unrolled = compile_program(source, TRAY, options)
    assert len(unrolled.blocks) == len(unrolled.calls) - pp + 1 > len(replicated.blocks)
    for name in COLUMNS + TAGS:
        assert np.array_equal(getattr(replicated.expand(160), name), getattr(unrolled.expand(160), name)), (
            name
        )


def test_the_search_for_a_tp_says_what_it_tried_and_takes_the_shortest_step() -> None:
    program = compiled()
    tried = {one.tp: one.cycles for one in program.manifest.search}
    assert list(tried) == [1, 2, 4, 8][: len(tried)]
    assert program.manifest.options.tp == min(tried, key=lambda tp: tried[tp] or 0)
    assert program.manifest.cycles[160] == min(count for count in tried.values() if count)
    assert compiled(tp=2).manifest.search == ()


def test_the_residual_of_one_block_is_the_input_of_the_next_by_tag() -> None:
    program = compiled(tp=2)
    columns = program.expand(160)
    adds = np.flatnonzero(columns.op == Op.ADD)
    stats = columns.src_tag[columns.op == Op.RSTAT]
    assert np.isin(columns.dst_tag[adds] >> 40, stats >> 40).all()


@pytest.mark.parametrize("layout", ["column", "row", "2d"])
def test_every_layout_computes_each_product_once(layout: str) -> None:
    """Each (weight line, k tile) is multiplied on exactly one rank, whatever the layout."""
    columns = compiled(tp=4, layout=layout).expand(160)
    products = columns.op == Op.MM
    weights = np.repeat(columns.src2_tag[products], columns.n[products])
    assert len(np.unique(columns.src2_tag[products])) == products.sum()
    source = llama()
    assert len(weights) == sum(
        _tiles(name, shape.shape[0]) * _lines(name, shape.shape[1])
        for name, shape in source.params.items()
        if name.endswith("codes")
    )


def _tiles(name: str, rows: int) -> int:
    """k tiles: the output of each of the 4 KV heads is a line of its own, two lines make a tile."""
    return 2 if name.endswith(".o.codes") else -(-rows // 320)


def _lines(name: str, columns: int) -> int:
    if name.endswith((".q.codes", ".k.codes", ".v.codes")):
        return 4 * -(-columns // 4 // 80)
    if name.endswith((".gate.codes", ".up.codes")):
        return 2 * -(-columns // 160)
    return -(-columns // 80)


def test_a_tp_above_the_rack_names_both_numbers() -> None:
    with pytest.raises(OptionError, match=r"--tp 9.*8 chips"):
        compiled(tp=9)


def test_chips_that_a_tp_leaves_over_stay_idle() -> None:
    assert {chip for group in compiled(tp=3).manifest.groups for chip in group} <= set(range(6))


def test_more_stages_than_groups_are_refused() -> None:
    with pytest.raises(OptionError, match=r"--pp 5.*2 groups of 4"):
        compiled(tp=4, pp=5)


@pytest.mark.slow
def test_a_model_that_does_not_fit_says_bytes_needed_and_available() -> None:
    small = replace(TRAY, chip=TRAY.chip.with_numbers(sram_bytes=200_000))
    with pytest.raises(CapacityError, match=r"needs .* a chip has"):
        compile_program(llama(), small, CompileOptions(tp=1))


def test_a_tp_is_given_up_by_its_first_templates_and_would_have_been_longer() -> None:
    source, rack = llama(layers=34, wide=64), load_rack("ring-8")
    program = compile_program(source, rack, CompileOptions())
    best = program.manifest.cycles[160]
    given_up = [one.tp for one in program.manifest.search if "given up" in one.reason]
    assert program.manifest.tp not in given_up
    for tp in given_up:
        assert compile_program(source, rack, CompileOptions(tp=tp)).manifest.cycles[160] > best
    assert given_up == [4, 8]


def test_one_chip_that_exchanges_nothing_is_tried_even_where_fewer_chips_were_worse() -> None:
    searched = compile_program(llama(layers=34, wide=64), load_rack("quad"), CompileOptions()).manifest.search
    cycles = [(one.tp, one.cycles or 0) for one in searched]
    assert [tp for tp, _ in sorted(cycles, key=lambda one: one[1])] == [1, 4, 2]


@pytest.mark.slow
def test_the_search_for_tp_takes_the_fastest_that_fits() -> None:
    best = compile_program(llama(), TRAY, CompileOptions())
    every = [compiled(tp=tp).manifest.cycles[160] for tp in (1, 2, 4, 8)]
    assert best.manifest.cycles[160] == min(every)


@pytest.mark.parametrize(("kv", "remedy"), [("fp16", ", or kv: fp8."), ("fp8", " or a shorter context.")])
def test_no_remedy_advises_the_kv_format_that_a_model_has(kv: KVFormat, remedy: str) -> None:
    pair, source = load_rack("pair"), llama(layers=3)
    small = replace(pair, chip=pair.chip.with_numbers(sram_bytes=1_280_000))
    source = replace(source, model=replace(source.model, kv=kv))
    for options in (CompileOptions(tp=1), CompileOptions(), CompileOptions(tp=1, objective="throughput")):
        with pytest.raises(CapacityError, match="chips") as found:
            compile_program(source, small, options)
        assert found.value.remedy.endswith(remedy), str(found.value)
