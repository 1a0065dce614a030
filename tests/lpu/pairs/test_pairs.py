"""Reports, racks and placements held against each other: the true cause is first, and all of it adds up."""

import json
from pathlib import Path
from typing import Any

import pytest

from lpu import api
from lpu.afd.modes.afd import Afd
from lpu.afd.options import Gpus
from lpu.afd.report import AfdReport
from lpu.cli import app as cli
from lpu.compare.point import Task
from lpu.diff.diff import Difference, NothingComparableError
from lpu.folder import save_program
from lpu.gpu.request import Request
from lpu.inputs.document import FileError
from lpu.pairs.ask import diff
from lpu.pairs.racks import RackDifference
from lpu.pairs.times import TimesDifference
from lpu.traffic.options import TrafficGpus
from lpu.traffic.reports.report import ReplayReport

SLOW_BRIDGE = (
    "name: spectrum-x\nlpu_bytes_per_second: 12_500_000_000\nrack_bytes_per_second: 3_200_000_000_000\n"
    "rack_lpus: 256\nlatency_ns: 9000\n"
)


def afd(bridge: str = "spectrum-x", new_tokens: int = 3) -> AfdReport:
    request = Request(prompt_tokens=12, new_tokens=new_tokens, batch=2)
    gpus = Gpus(gpus=1, bridge=bridge)
    return api.afd("llama-tiny", request, mode=Afd(), rack="pair", gpus=gpus)


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> tuple[AfdReport, AfdReport]:
    path = tmp_path_factory.mktemp("bridge") / "bridge.yaml"
    path.write_text(SLOW_BRIDGE)
    return afd(), afd(str(path), new_tokens=5)


def times(found: Any) -> TimesDifference:
    assert isinstance(found, TimesDifference)
    for one in found.changes:
        assert sum(cause.cycles for cause in one.causes) + one.unexplained == one.more
        assert sum(row.more for row in one.rows) == one.more
        for cause in one.causes:
            assert not cause.parts or sum(part.cycles for part in cause.parts) == cause.cycles
    return found


def test_of_two_divided_models_each_cause_has_its_time(divided: tuple[AfdReport, AfdReport]) -> None:
    found = times(diff(*divided))
    token, _, whole, _ = found.changes
    assert found.how == "asked again, 2 things changed in turn"
    assert found.main is token
    assert found.first == "another bridge"
    assert abs(token.causes[0].cycles) > 100 * abs(token.causes[1].cycles)  # a longer KV, on average
    assert "latency_ns 4000 -> 9000" in dict(found.changed)["another bridge"]
    assert {cause.name for cause in whole.causes} == {"another bridge", "more new tokens"}
    assert not any(one.unexplained for one in found.changes)
    assert token.more == divided[1].turns[-1].tpot - divided[0].turns[-1].tpot


def test_what_asking_again_does_not_give_is_not_explained(
    divided: tuple[AfdReport, AfdReport], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = [one.to_json() for one in divided]
    bodies[1]["turns"][-1]["tpot"][0]["seconds"] += 1e-6
    for name, body in zip("ab", bodies, strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(body))
    assert cli.main(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "+1.000  not explained" in capsys.readouterr().out


def test_a_report_that_names_a_module_of_ones_own_imports_nothing(
    divided: tuple[AfdReport, AfdReport],
) -> None:
    ours, theirs = divided
    theirs.asked["model"] = "evil:factory"
    try:
        found = times(diff(ours, theirs))
    finally:
        theirs.asked["model"] = "llama-tiny"
    assert "not imported again" in found.how
    assert (
        found.changes[0].causes[0].name == "longer ping-pong step"
    )  # by its parts, as nothing else is known


def replayed(rate: int, tmp_path: Path) -> ReplayReport:
    path = tmp_path / "requests.yaml"
    path.write_text(
        f"requests: 200\narrivals: {{kind: poisson, rate: {rate}}}\n"
        "input: {kind: fixed, mean: 40}\noutput: {kind: fixed, mean: 9}\n"
    )
    return api.replay(path, "llama-tiny", rack="quad", gpus=TrafficGpus(gpus=0), context=80, check=False)


def test_of_two_replays_the_arrival_rate_is_the_cause(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    found = times(diff(replayed(2_000, tmp_path), replayed(60_000, tmp_path)))
    assert found.first == "a higher arrival rate"
    assert found.main.causes[0].parts[0].name == "longer queue"
    assert found.unexplained == 0
    assert len(found.plot().data) == 1
    api.page(found, tmp_path / "diff.html")
    assert "a higher arrival rate" in (tmp_path / "diff.html").read_text()


def test_two_racks_differ_in_their_numbers_and_a_model_in_its_cycles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = diff("quad", "lpx-tray")
    assert isinstance(found, RackDifference)
    assert {one.name: (one.a, one.b) for one in found.numbers}["chips"] == (4, 8)
    assert "chips" in str(found)
    assert found.same > 10
    same = diff("quad", "quad")
    assert isinstance(same, RackDifference)
    assert not same.numbers
    cycles = diff("quad", "lpx-tray", model="llama-tiny", context=80)
    assert isinstance(cycles, Difference)
    assert [name for name, _ in cycles.changed] == ["another rack"]
    save_program(api.compile("llama-tiny", rack="quad", context=80, check=False).program, tmp_path / "quad")
    monkeypatch.chdir(tmp_path)
    assert isinstance(diff("quad", "quad"), Difference)  # a program folder of that name comes first
    monkeypatch.undo()
    with pytest.raises(NothingComparableError, match="quad is a rack, b is a report"):
        diff("quad", replayed(2_000, tmp_path))


def test_two_placements_of_a_comparison_are_compiled_again(tmp_path: Path) -> None:
    results = tmp_path / "results"
    base = Task(model="llama-tiny", rack="", strategy="", tp=1, budget=10)
    api.compare("llama-tiny", ["contiguous", "minmax-dp"], racks=["quad"], task=base, folder=results)
    found = diff(results / "contiguous", results / "minmax-dp:0")
    assert isinstance(found, Difference)
    assert found.cycles
    assert found.first == "another placement"
    assert found.unexplained == 0
    with pytest.raises(FileError, match=r"no such points. Name one of default:0@quad"):
        diff(results / "annealing", results / "contiguous")
