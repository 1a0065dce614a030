import numpy as np
import pytest
from renumbered import KINDS, RACKS, cycles, hold_numbering, model, relabelled

import compiler.pipeline
from compiler.hops import compile_hops
from compiler.options import CompileOptions
from compiler.pipeline import compile_placed, compile_program
from compiler.source import traced
from fabric.catalog import bridge_spec
from fabric.numbering import as_given
from fabric.rack import Rack
from lpu.check.check import check, require


def latest(rack: Rack, **options: object) -> int:
    program = compile_program(model().source(), rack, CompileOptions(**options))  # pyright: ignore[reportArgumentType]
    return max(program.manifest.cycles.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_rack_takes_as_many_cycles_by_any_other_numbers(kind: str) -> None:
    for case in range(len(RACKS)) if kind == "latency" else (4,):
        assert hold_numbering((case * len(KINDS) + KINDS.index(kind)) * 20) == "held"


def test_without_numbers_of_their_own_the_cycles_of_racks_go_by_what_chips_are_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler.pipeline, "numbers_of", lambda rack, options: as_given(rack))
    took = [cycles(relabelled(RACKS["torus"](), seed), "latency") for seed in range(3)]
    assert max(took) > 1.1 * min(took)


def test_a_torus_takes_as_many_cycles_whichever_of_its_axes_is_named_first() -> None:
    two, four = (relabelled(RACKS["torus"](), seed) for seed in (2, 3))
    assert latest(RACKS["torus"](), tp=8) == latest(two, tp=8) == latest(four, tp=8)


@pytest.mark.parametrize("placement", ["round-robin", "random", "minmax-dp"])
def test_strategies_see_chips_as_the_compiler_numbers_them(placement: str) -> None:
    rack = RACKS["irregular"]()
    assert latest(rack, tp=2, placement=placement) == latest(relabelled(rack, 5), tp=2, placement=placement)


def test_a_placement_is_in_the_numbers_of_the_file() -> None:
    rack = relabelled(RACKS["irregular"](), 4)
    opened = traced(model().source())
    placement = np.tile(np.array([7, 2]), (len(opened.blocks), 1))
    program = compile_placed(opened, rack, CompileOptions(tp=2, cp=1), placement)
    assert {call.chips for call in program.calls} == {(7, 2)}
    require(check(program, 80))


def test_hops_are_on_the_same_chips_whatever_they_are_called() -> None:
    found: list[dict[int, int]] = []
    for seed in (0, 1):
        rack = relabelled(RACKS["irregular"](), seed)
        options, bridge = CompileOptions(tp=4), bridge_spec("spectrum-x")
        program, _ = compile_hops(model(divided=True).source(), rack, options, bridge)
        require(check(program, max(program.manifest.contexts)))
        found.append(program.manifest.cycles)
    assert found[0] == found[1]
