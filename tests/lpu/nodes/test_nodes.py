import json
from typing import Any

import pytest

from fabric.catalog import node_names
from lpu import api
from lpu.cli import app as cli
from lpu.nodes.ask import demand_of
from lpu.nodes.matrix import BATCHES, CONTEXTS, FORMATS, MODELS
from lpu.nodes.options import Cold, NodeLoad


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["nodes", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_stands_on_nodes_and_beside_a_rack(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(
        capsys, "compare", "llama-tiny", "--rack", "quad", "--context", "128", "--nodes", "gb10,h100"
    )
    assert [one["node"] for one in found["nodes"]] == ["gb10", "h100"]
    program = api.compile("llama-tiny", rack="quad", context=128, kv="fp8", weights="seed:0").program
    assert found["rack"]["cycles"] == program.manifest.cycles[128]
    assert found["rack"]["kind"] == "exact for the stated machine"
    assert all(one["kind"] == "modelled" and one["error"] is None for one in found["nodes"])
    step = found["nodes"][0]["decode"][0]
    assert step["seconds"] >= max(step["compute_seconds"], sum(step["memory_seconds"].values()))


@pytest.mark.slow
def test_what_does_not_fit_or_compile_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "compare", "dense-500b", "--nodes", "h100,vera-rubin", "--weights", "fp4")
    assert "h100: needs 250.0 GB of weights" in found["nodes"][0]["error"]
    assert found["nodes"][1]["error"] is None
    assert "known by its sizes alone" in found["rack"]["error"]
    big = asked(capsys, "compare", "llama-3.1-405b", "--nodes", "ddr5-soc", "--rack", "quad")
    assert "quad" in big["rack"]["error"] or "405b" in big["rack"]["error"]
    assert "in fp4" in asked(capsys, "compare", "llama-tiny", "--kv", "fp4")["rack"]["error"]


def test_idle_time_costs_idle_power() -> None:
    def joules(duty: float) -> tuple[float, float]:
        load = NodeLoad(nodes="strix-halo", rack="none", duty=duty)
        (one,) = api.nodes_compare("llama-3.1-8b", load).nodes
        return one.joules_per_token

    full, half = joules(1.0), joules(0.5)
    (one,) = api.nodes_compare("llama-3.1-8b", NodeLoad(nodes="strix-halo", rack="none")).nodes
    step = one.steps[0].seconds
    assert full == tuple(watts * step for watts in one.node.watts)
    assert half == pytest.approx([a + idle * step for a, idle in zip(full, one.node.idle_watts, strict=True)])


def test_the_matrix_has_96_points_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "matrix", "--nodes", "vera-rubin,ddr5-soc")
    points = found["points"]
    assert len(points) == 2 * 96 == 2 * len(MODELS) * len(FORMATS) * len(BATCHES) * len(CONTEXTS)
    assert len({(p["node"], p["model"], p["weights"], p["batch"], p["context"]) for p in points}) == 192
    for one in points:
        if one["error"] is None:
            assert one["prefill"][0]["seconds"] > 0
            assert one["p95_seconds"] > one["decode"][0]["seconds"]
            assert 0 < one["fault_rate"] <= 1
            low, high = one["joules_per_token"]
            assert 0 < low <= high
    on_drive = [p for p in points if any(held["tier"] == "ssd" for held in p.get("held_bytes", ()))]
    assert on_drive
    assert all(p["fault_rate"] == 1 for p in on_drive)


def test_every_node_is_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert [one["name"] for one in asked(capsys)["nodes"]] == list(node_names())
    shown = asked(capsys, "gb10")
    assert shown["schema"] == "lpu-node/1"
    assert all(number["source"] for number in shown["numbers"])
    kept = asked(capsys, "persistence", "--system", "10", "--session", "5")["changes"]
    assert [one["valid"] for one in kept] == [0, 0, 0, 0, 0, 0, 15, 15]


@pytest.mark.parametrize(
    "words",
    [
        ["compare"],
        ["matrix", "llama-tiny"],
        ["no-such-node"],
        ["compare", "llama-tiny", "--nodes", "h1000"],
        ["compare", "llama-tiny", "--nodes", "h100,h100"],
        ["compare", "llama-tiny", "--duty", "0"],
        ["compare", "llama-tiny", "--duty", "nan"],
        ["compare", "llama-tiny", "--duty", "much"],
        ["compare", "llama-tiny", "--miss", "2"],
        ["compare", "llama-tiny", "--places", "100000"],
        ["compare", "llama-tiny", "--weights", "int3"],
        ["compare", "llama-tiny", "--context", "99999999999999"],
        ["compare", "no-such-model"],
        ["compare", "llama-tiny", "--rack", "no-such-rack"],
        ["matrix", "--batch", "4"],
        ["persistence", "--context", "4"],
        ["h100", "--batch", "4"],
        ["persistence", "--session", "99999999999"],
    ],
)
def test_a_wrong_question_is_one_line_and_exit_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["nodes", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_a_node_of_ones_own_is_a_file(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: a box\ndevices: 1\nflops_fp16: 1_000_000_000_000\nflops_efficiency: 1.0\n"
        "reserve: 0.0\nidle_watts: [1.0, 2.0]\nwatts: [10.0, 20.0]\n"
        "tiers:\n  - {name: ram, memory_bytes: 64_000_000_000, bytes_per_second: 100_000_000_000,"
        " efficiency: 1.0}\n"
    )
    assert cli.main(["nodes", str(path)]) == 0
    assert "stated in" in capsys.readouterr().out
    found = asked(capsys, "compare", "llama-3.1-8b", "--nodes", str(path), "--rack", "none", "--context", "1")
    expected = demand_of("llama-3.1-8b").active / 100e9
    assert found["nodes"][0]["decode"][0]["seconds"] == pytest.approx(expected, rel=1e-4)
    path.write_text(path.read_text().replace("watts: [10.0", "watts: [30.0"))
    assert cli.main(["nodes", str(path)]) == 2
    assert "mine.yaml" in capsys.readouterr().err


def test_misses_are_those_that_were_asked_for() -> None:
    load = NodeLoad(nodes="gb10", rack="none")
    (none,) = api.nodes_compare("llama-3.1-8b", load, Cold(miss=0.0)).nodes
    (many,) = api.nodes_compare("llama-3.1-8b", load, Cold(places=10, miss=0.9)).nodes
    assert none.p95_seconds == none.steps[0].seconds
    assert many.faults
    assert many.faults.p95 == 10
