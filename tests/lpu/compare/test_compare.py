import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compiler.errors import OptionError
from lpu.cli.app import main
from lpu.compare import runner as compare_runner
from lpu.compare.compare import Comparison, RackComparison, compare, front, spearman
from lpu.compare.pictures import need_matplotlib
from lpu.compare.point import DEFAULT, Point, Task
from lpu.compare.results import POINTS, results
from lpu.inputs.document import FileError

TASK = Task(model="llama-tiny", rack="quad", strategy="", tp=2, budget=300)
NAMES = ["contiguous", "minmax-dp", "annealing"]


def modelled(found: Comparison) -> list[Point]:
    return [replace(point, measured={}) for one in found.racks for point in one.points]


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare(TASK, ["quad"], NAMES, 2, jobs=1)


@pytest.mark.slow
def test_every_strategy_has_its_points_and_only_those_that_draw_have_one_per_seed(found: Comparison) -> None:
    assert [(p.strategy, p.seed) for p in found.racks[0].points] == [
        (DEFAULT, 0),
        ("contiguous", 0),
        ("minmax-dp", 0),
        ("annealing", 0),
        ("annealing", 1),
    ]


def test_contiguous_is_what_compile_does_by_default_and_the_best_is_no_slower(found: Comparison) -> None:
    one = found.racks[0]
    assert one.points[1].program_sha256 == one.default.program_sha256
    assert one.best.latency_cycles <= one.default.latency_cycles


def test_figures_hold_together(found: Comparison) -> None:
    for point in found.racks[0].points:
        assert point.bound_cycles <= point.latency_cycles
        assert 0 < point.period_cycles == max(point.busy_cycles) <= point.latency_cycles
        assert 0 < point.max_bytes <= 500_000_000
        assert [stage < 0 for stage in point.stage] == [busy == 0 for busy in point.busy_cycles]
    contiguous, minmax = found.racks[0].points[1:3]
    assert minmax.period_cycles < contiguous.period_cycles
    assert minmax.hop_bytes > 0


@pytest.mark.slow
def test_processes_give_the_same_points_as_one(found: Comparison) -> None:
    assert modelled(compare(TASK, ["quad"], NAMES, 2, jobs=2)) == modelled(found)


@pytest.mark.slow
def test_a_comparison_cut_off_in_the_middle_of_a_line_ends_with_the_same_table(
    found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(TASK, ["quad"], NAMES, 2, folder=tmp_path, jobs=1)
    lines = (tmp_path / POINTS).read_text().splitlines()
    assert len(lines) == 5
    (tmp_path / POINTS).write_text("\n".join(lines[:2]) + "\n" + lines[2][:100])
    computed: list[str] = []

    def counted(task: dict[str, Any]) -> dict[str, Any]:
        computed.append(task["strategy"])
        return measure(task)

    measure = compare_runner.measure
    monkeypatch.setattr(compare_runner, "measure", counted)
    assert modelled(compare(TASK, ["quad"], NAMES, 2, folder=tmp_path, jobs=1)) == modelled(found)
    assert computed == ["minmax-dp", "annealing", "annealing"]
    assert modelled(compare(TASK, ["quad"], NAMES, 2, folder=tmp_path, jobs=1)) == modelled(found)
    assert len(computed) == 3


def test_an_altered_result_is_refused_by_name(tmp_path: Path) -> None:
    one = replace(TASK, budget=10)
    compare(one, ["quad"], ["contiguous"], 1, folder=tmp_path, jobs=1)
    path = tmp_path / POINTS
    whole = path.read_bytes()
    number = json.loads(whole.splitlines()[1])["point"]["latency_cycles"]
    at = whole.rindex(f"{number}".encode())
    second = len(whole.splitlines()[0]) + 1
    edits = {
        f"{POINTS}:2: its sha256 is not": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        f"{POINTS}:1: its sha256 is not": b"\xff" + whole,
        f"{POINTS}:2: its sha256 is": whole[:second] + b"{}}" + whole[second:],
        f"{POINTS}:1: schema is None": b"{}\n" + whole,
        f"{POINTS}:1: its sha256": b"[" * 100_000 + b"\n" + whole,
    }
    for said, edited in edits.items():
        path.write_bytes(edited)
        with pytest.raises(FileError, match=said) as caught:
            compare(one, ["quad"], ["contiguous"], 1, folder=tmp_path, jobs=1)
        assert len(str(caught.value)) < 400
        assert path.read_bytes() == edited
    path.write_bytes(whole + whole[:100])
    compare(one, ["quad"], ["contiguous"], 1, folder=tmp_path, jobs=1)
    assert path.read_bytes() == whole


def test_of_two_comparisons_in_one_folder_one_says_so(tmp_path: Path) -> None:
    new, busy = tmp_path / "new", "another comparison is writing it"
    with results(new), pytest.raises(FileError, match=busy), results(new):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / POINTS).write_text("my notes")
    with pytest.raises(FileError, match="altered"), results(tmp_path):
        pass
    assert (tmp_path / POINTS).read_text() == "my notes"


def test_another_budget_is_another_point(tmp_path: Path) -> None:
    for budget in (10, 20):
        compare(replace(TASK, budget=budget), ["quad"], ["contiguous"], 1, folder=tmp_path, jobs=1)
    keys = [json.loads(line)["key"] for line in (tmp_path / POINTS).read_text().splitlines()]
    assert len(set(keys)) == len(keys) == 4


def test_a_strategy_that_fails_is_a_row_with_its_reason() -> None:
    found = compare(replace(TASK, budget=1), ["torus-4x4"], ["exhaustive", "contiguous"], 1, jobs=1)
    one = found.racks[0]
    assert one.rows()[-1][:3] == ["exhaustive", "0/1", "-"]
    assert "failed      exhaustive: place: exhaustive:" in str(one)
    assert one.to_json()["points"][1]["error"].startswith("place: exhaustive")


@pytest.mark.slow
def test_certify_runs_every_placement_to_the_bits_of_the_reference() -> None:
    found = compare(replace(TASK, certify=2), ["quad"], ["minmax-dp", "spectral"], 1, jobs=1)
    one = found.racks[0]
    assert one.bits_equal is True
    assert {point.logits_sha256 for point in one.points} == {one.default.reference_sha256}
    other = replace(one.points[1], logits_sha256="0" * 64)
    assert RackComparison(rack="quad", points=(one.default, other)).bits_equal is False


@pytest.mark.slow
def test_racks_are_ranked_against_the_first() -> None:
    found = compare(TASK, ["quad", "torus-4x4"], ["contiguous", "minmax-dp", "round-robin"], 1, jobs=1)
    assert found.across()[0].startswith("ranking     torus-4x4 against quad: rank correlation ")


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.9487, abs=1e-4)
    assert spearman([1, 1], [1, 2]) is None


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    made = [
        Point(strategy="a", seed=i, latency_cycles=a, period_cycles=b)
        for i, (a, b) in enumerate(((5, 5), (4, 6), (6, 5), (7, 1)))
    ]
    assert [point.seed for point in front(made)] == [1, 0, 3]


def test_an_unknown_strategy_ends_the_comparison_before_it_begins() -> None:
    with pytest.raises(OptionError, match="annealling"):
        compare(TASK, ["quad"], ["annealling"], 1)


@pytest.mark.parametrize(
    ("module", "extra"), [("matplotlib.figure", "matplotlib"), ("distributed", "distributed")]
)
def test_a_missing_extra_is_one_line_with_its_pip_command(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    asked = {
        "matplotlib": need_matplotlib,
        "distributed": lambda: compare(TASK, ["quad"], NAMES, 1, scheduler="tcp://nowhere:1"),
    }
    with pytest.raises(FileError, match=rf"pip install 'lpu-emulator\[{extra}\]'"):
        asked[extra]()


def test_a_cluster_gives_the_same_points(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, address: str) -> None:
            assert address == "tcp://somewhere:1"

        def __enter__(self) -> "Client":
            return self

        def __exit__(self, *_: object) -> None: ...

        def map(self, function: Any, tasks: list[Any], pure: bool) -> list["Future"]:
            return [Future(function, task) for task in tasks]

    class Future:
        def __init__(self, function: Any, task: Any) -> None:
            self.function, self.task = function, json.loads(json.dumps(task))

        def result(self, timeout: float) -> Any:
            return self.function(self.task)

    def wait(futures: list[Future], timeout: float, return_when: str) -> Any:
        return SimpleNamespace(done=futures[-1:])

    made = SimpleNamespace(Client=Client, wait=wait)
    monkeypatch.setitem(sys.modules, "distributed", made)
    other = compare(TASK, ["quad"], NAMES, 2, scheduler="tcp://somewhere:1")
    assert modelled(other) == modelled(found)


def test_the_verb_writes_a_table_json_and_csv(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["compare", "llama-tiny", "--rack", "quad", "--tp", "2", "--strategies", "contiguous"]
    assert main([*words, "--jobs", "1", "--csv", str(tmp_path / "a.csv")]) == 0
    shown = capsys.readouterr().out
    assert "strategy" in shown
    assert "best        default, seed 0" in shown
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 3
    assert main([*words, "--jobs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "lpu-compare/1"


def test_the_worked_example_is_found_by_name_and_fits_in_thirty_lines() -> None:
    path = Path(__file__).parents[3] / "examples" / "own_placement.py"
    assert len(path.read_text().splitlines()) <= 30
    found = compare(replace(TASK, budget=50), ["quad"], ["examples.own_placement:place"], 2, jobs=1)
    assert all(not point.error for point in found.racks[0].points)
