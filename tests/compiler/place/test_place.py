import sys
from importlib.util import find_spec

import numpy as np
import pytest
from steps import llama

from compiler.errors import CapacityError, OptionError
from compiler.options import PLACEMENTS, STRATEGIES, CompileOptions
from compiler.pipeline import compile_placed, compile_program
from compiler.place.cost import CostModel
from compiler.place.groups import contiguous, tables_of
from compiler.place.measure import shards_of
from compiler.place.problem import PlacementError, Shards, checked
from compiler.place.registry import search
from compiler.program.program import Program
from compiler.program.store import content
from compiler.source import traced
from fabric.rack import Rack, load_rack

TRAY, TORUS = load_rack("lpx-tray"), load_rack("torus-4x4")
SOURCE = llama(layers=3)
MODEL = traced(SOURCE)


def shards(rack: Rack, tp: int) -> Shards:
    return shards_of(MODEL.plan(rack, CompileOptions(tp=tp)), MODEL.blocks, rack, tp, "column")


def program_of(rack: Rack, tp: int, placement: np.ndarray) -> Program:
    return compile_placed(MODEL, rack, CompileOptions(tp=tp, cp=1), placement)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_a_strategy_that_only_chooses_groups_places_as_the_compiler_does(name: str) -> None:
    problem = shards(TORUS, 4)
    found = search(name, problem, TORUS, CostModel(problem, TORUS), 3, 1)
    straight = compile_program(SOURCE, TORUS, CompileOptions(tp=4, placement=name, seed=3))
    assert content(program_of(TORUS, 4, found)) == content(straight)


EXTRAS = {"metis": "pymetis", "cpsat": "ortools"}
INSTALLED = [name for name in STRATEGIES if name not in EXTRAS or find_spec(EXTRAS[name])]


@pytest.mark.parametrize("name", EXTRAS)
def test_an_extra_that_is_not_installed_is_named_with_its_pip_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, EXTRAS[name], None)
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    problem = shards(TRAY, 2)
    with pytest.raises(PlacementError, match=rf"pip install 'lpu-emulator\[{name}\]'"):
        search(name, problem, TRAY, CostModel(problem, TRAY), 0, 10)


@pytest.mark.parametrize("name", INSTALLED)
def test_every_strategy_gives_a_placement_that_fits_twice_the_same(name: str) -> None:
    problem = shards(TRAY, 2)
    found = [search(name, problem, TRAY, CostModel(problem, TRAY), 5, 20_000) for _ in range(2)]
    assert np.array_equal(found[0], found[1])
    assert program_of(TRAY, 2, found[0]).manifest.cycles[160] > 0


def test_a_block_whose_shards_share_chips_is_scheduled_on_its_distinct_chips() -> None:
    problem = shards(TRAY, 4)
    placement = np.tile(np.arange(4), (len(problem), 1))
    placement[1] = [2, 2, 3, 3]
    program = program_of(TRAY, 4, placement)
    assert [call.chips[:2] for call in program.calls if call.name == problem.names[1]] == [(2, 3)]
    assert len(program.manifest.groups) == 4


def test_estimate_and_tables_agree_on_whole_groups() -> None:
    problem = shards(TORUS, 4)
    cost = CostModel(problem, TORUS, alpha=3)
    tables = tables_of(cost)
    for seed in range(20):
        at = np.random.default_rng(seed).integers(0, 4, len(problem)).tolist()
        one = cost.estimate(tables.placement(at))
        assert (one.latency, one.period, one.value) == (
            tables.latency(at),
            tables.period(at),
            tables.value(at),
        )


def test_the_cost_model_gives_the_real_cycles_of_a_model_on_the_group_it_was_measured_on() -> None:
    problem = shards(TRAY, 4)
    placement = np.tile(np.arange(4), (len(problem), 1))
    real = int(program_of(TRAY, 4, placement).manifest.cycles[160])
    assert CostModel(problem, TRAY).estimate(placement).latency == pytest.approx(real, rel=0.02)


def test_a_placement_over_capacity_is_refused_with_both_numbers() -> None:
    problem = shards(TRAY, 1)
    full = Shards(**{n: getattr(problem, n) for n in Shards.__slots__ if n != "room"}, room=10)
    with pytest.raises(CapacityError, match=r"put .* MB on chip 0, a chip has 0\.0 MB"):
        checked(full, 8, np.zeros((len(problem), 1), np.int64), "mine")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([0, 1], "gave a list"),
        (np.zeros((2, 2)), "float64"),
        (np.zeros((1, 1), int), "of shape"),
        (np.full((8, 2), 9), "chip 9, the rack has 0 to 7"),
    ],
)
def test_what_is_no_placement_is_refused(found: object, message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        checked(shards(TRAY, 2), 8, found, "mine")


def drifting(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> np.ndarray:
    drifting.calls = getattr(drifting, "calls", 0) + 1  # pyright: ignore[reportFunctionMemberAccess]
    return np.full((len(shards), shards.tp), drifting.calls % 8)  # pyright: ignore[reportFunctionMemberAccess]


def failing(shards: Shards, rack: Rack, cost: CostModel, seed: int, budget: int) -> np.ndarray:
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(
    ("name", "message"),
    [("drifting", "gave two placements for seed 0"), ("failing", "failed with ZeroDivisionError")],
)
def test_a_bad_plug_in_is_refused_with_one_line(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compiler.place.groups.first_fit", globals()[name])
    problem = shards(TRAY, 2)
    with pytest.raises(PlacementError, match=message) as error:
        search("compiler.place.groups:first_fit", problem, TRAY, CostModel(problem, TRAY), 0, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nothing", "no.such:thing", "compiler.program.isa:WORD_BYTES"])
def test_a_strategy_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        compile_program(SOURCE, TRAY, CompileOptions(tp=2, placement=name))


def test_pp_is_refused_where_the_strategy_chooses_the_groups() -> None:
    with pytest.raises(OptionError, match="--pp 2"):
        CompileOptions(tp=2, pp=2, placement="minmax-dp")


def test_groups_of_a_rack_are_disjoint_and_whole() -> None:
    assert sorted(sum(contiguous(TORUS, 4), ())) == list(range(16))


def test_groups_of_whole_trays_lie_within_a_rack_as_long_as_they_can() -> None:
    found = contiguous(load_rack("lpx-x2"), 96)
    racks = [{chip // 256 for chip in group} for group in found]
    assert racks == [{0}, {0}, {1}, {1}, {0, 1}]
    assert len(set(sum(found, ()))) == 480
    assert contiguous(TRAY, 3) == ((0, 1, 2), (3, 4, 5))
