from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from enlarged import cycles as enlarged
from enlarged import with_knob
from renumbered import level, model

import compiler.choose.planes
from compiler.choose.planes import OTHERS, is_stated
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from compiler.throughput import fewer
from fabric.catalog import chip_spec
from fabric.chip import ChipSpec, stated
from fabric.rack import Rack, build_rack, load_rack
from fabric.topology import Kind, RackSpec
from lpu.check.check import check, require

TINY = chip_spec("tiny")
SMALL = TINY.with_numbers("test", sram_bytes=1_920_000)


def rack_of(chip: ChipSpec, chips: int, lanes: int = 8, kind: Kind = "all-to-all") -> Rack:
    one = replace(level("tray", kind, chips), lanes=lanes)
    spec = RackSpec(name="knob", chip=chip.name, forward_ns=50, levels=(one,))
    return build_rack(replace(spec, sources=stated(spec.numbers(), (), "test")), chip)


def with_number(**numbers: int) -> Rack:
    return rack_of(TINY.with_numbers("test", **numbers), 2)


def compiled(rack: Rack, **options: Any) -> Program:
    program = compile_program(model().source(), rack, CompileOptions(**options))
    require(check(program, 80))
    return program


def cycles(program: Program) -> int:
    body = program.manifest.body
    return body.contexts[80].interval if body.kind == "waves" else program.manifest.cycles[80]


KNOBS: dict[str, tuple[Callable[[int], Rack], tuple[int, ...]]] = {
    "planes": (lambda n: with_number(planes=n), (1, 2, 3, 4)),
    "vxm_chains": (lambda n: with_number(vxm_chains=n), (1, 2, 4)),
    "accumulators": (lambda n: with_number(accumulators=n), (1, 2, 16)),
    "activation_ports": (lambda n: with_number(activation_ports=n), (8, 32)),
    "sram_bytes": (lambda n: with_number(sram_bytes=320_000 * n), (12, 16, 25)),
    "lanes": (lambda n: rack_of(TINY, 2, lanes=n), (1, 2, 3, 8)),
    "chips": (lambda n: rack_of(SMALL, n), (4, 5, 6, 8)),
}


@pytest.mark.slow
@pytest.mark.parametrize("knob", KNOBS)
def test_more_never_takes_more_cycles_than_less(knob: str) -> None:
    machine, values = KNOBS[knob]
    tp = None if knob in ("chips", "planes") else 2
    took = [cycles(compiled(machine(value), tp=tp)) for value in values]
    assert took == sorted(took, reverse=True)


def test_without_idle_planes_more_of_them_take_more_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = with_number(planes=1), with_number(planes=4)
    assert cycles(compiled(many, tp=2)) <= cycles(compiled(few, tp=2))
    monkeypatch.setattr(compiler.choose.planes, "MOST_ROWS", 0)
    assert cycles(compiled(many, tp=2)) > cycles(compiled(few, tp=2))


def test_without_idle_chains_more_of_them_let_a_wave_enter_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def took(chains: int) -> int:
        return enlarged("moe-tiny", with_knob("dragonfly", "tiny", "vxm_chains", chains), "waves")

    monkeypatch.setattr(fewer, "FEW", 0)  # as for models of many blocks
    few = took(4)
    assert took(8) <= few
    monkeypatch.setattr(compiler.choose.planes, "OTHERS", ())
    assert took(8) > few


def test_a_program_says_how_many_planes_are_stated_and_in_use() -> None:
    manifest = compiled(with_number(planes=4), tp=1).manifest
    assert manifest.chip.planes < 4
    (source,) = (one for one in manifest.sources if one.field == "planes")
    assert source.source.startswith(f"4 are stated, {manifest.chip.planes} in use")


def test_planes_of_the_catalog_are_all_used() -> None:
    assert not is_stated(TINY, "planes")
    assert not is_stated(TINY.with_numbers("test", vxm_chains=3), "planes")
    assert is_stated(TINY.with_numbers("test", planes=2), "planes")
    assert all(is_stated(replace(TINY, name="my-own"), number) for number in ("planes", *OTHERS))
    assert compiled(load_rack("ring-8"), tp=1).manifest.chip.planes == TINY.planes


def test_a_group_need_not_divide_the_rack() -> None:
    rack = rack_of(SMALL, 6)
    program = compiled(rack)
    assert {one.tp for one in program.manifest.search} == {1, 2, 4}
    assert cycles(compiled(rack, tp=4)) == {one.tp: one.cycles for one in program.manifest.search}[4]
