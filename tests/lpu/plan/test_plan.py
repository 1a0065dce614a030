"""`lpu plan`: what it recommends meets the targets in a replay of its own, and what is cheaper does not."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from lpu.cli import app as cli
from lpu.plan.front import front, plot
from lpu.plan.options import token_count
from lpu.plan.verdict import Configuration, Judged

LOAD = ["--rate", "6000", "--isl", "60+-20", "--osl", "20", "--ttft", "1", "--requests", "3000"]
TINY = ["plan", "llama-tiny", "--racks", "quad", "--gpus", "0,1,2,4", *LOAD]


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert cli.main([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_cheapest_answer_is_verified_and_the_next_cheaper_one_misses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = told(capsys, *TINY, "--tpot", "0.01")
    costs = [one["rack_equivalents"] for one in found["configurations"]]
    assert costs == sorted(costs)
    best = found["configurations"][0]
    assert 0 < best["margin"] < 1
    assert best["ttft_seconds"] <= 1e-3
    cheaper = [one for one in found["refused"] if one["rack_equivalents"] < best["rack_equivalents"]]
    assert cheaper
    assert all(one["refused"] for one in found["refused"])
    assert any("in the replay, the target 1 ms" in one["refused"] for one in cheaper)
    assert any("busy" in one["refused"] for one in cheaper)
    Path("plan.yaml").write_text(found["requests_file"])
    again = told(capsys, *shlex.split(best["replay"])[1:])
    assert again["spans_seconds"]["ttft"]["percentiles"][3]["high_95"] == best["ttft_seconds"]
    assert again["good_share"] == best["good_share"] > 0.99
    missing = next(one for one in cheaper if "in the replay" in one["refused"])
    assert told(capsys, *shlex.split(missing["replay"])[1:])["good_share"] < 0.99


def test_every_mode_is_tried_and_its_replay_is_the_command_that_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--rate", "300", "--isl", "60+-20", "--osl", "20", "--ttft", "2", "--requests", "200"]
    words += ["--modes", "afd,draft", "--drafter", "llama-tiny", "--batches", "4", "--tpot", "0.2"]
    found = told(capsys, "plan", "llama-tiny", "--racks", "quad", "--gpus", "0,1", *words)
    (best,) = found["configurations"]
    (worse,) = found["refused"]
    assert (best["mode"], worse["mode"]) == ("draft", "afd")
    assert "TPOT" in worse["refused"]
    Path("plan.yaml").write_text(found["requests_file"])
    again = told(capsys, *shlex.split(best["replay"])[1:])
    assert again["spans_seconds"]["ttft"]["percentiles"][3]["value"] <= best["ttft_seconds"]
    assert again["good_share"] == best["good_share"] == 1


def test_a_load_that_nothing_serves_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, *TINY, "--tpot", "0.0001", "--objectives", "latency", code=1)
    assert found["configurations"] == []
    assert all("ms, the target 0.0001 ms" in one["refused"] for one in found["refused"])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--tpot", "-1"], "--tpot: is -1"),
        (["--tpot", "1", "--isl", "many"], "'many' is no number of tokens"),
        (["--tpot", "1", "--percentile", "42"], "--percentile: is 42"),
        (["--tpot", "1", "--objectives", "speed"], "'speed' is none of"),
        (["--tpot", "1", "--batches", "0"], "0 is no batch"),
        (["--tpot", "1", "--racks", "none-such"], "none-such"),
        (["--tpot", "1", "--modes", "tp"], "'tp' is none of pd, afd, draft"),
        (["--tpot", "1", "--modes", "draft"], "needs a small model"),
        (["--tpot", "1", "--rate", "1e-7"], "take 3e+10 seconds at this rate, the most are 3153600000"),
        (["--tpot", "1", "--rate", "1e10"], "rate: is 1e+10, must be 1e-9 to 1e9"),
    ],
)
def test_wrong_use_is_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert why in refused(capsys, 2, "plan", "llama-tiny", *LOAD, *words)


def test_the_front_is_what_nothing_beats() -> None:
    def verdict(gpus: int, ttft: float, reason: str = "") -> Judged:
        chosen = Configuration(
            rack="r", objective="latency", batch=1, context=1, gpus=gpus, replicas=1, chips=8
        )
        return Judged(configuration=chosen, ttft=ttft, reason=reason)

    good = [verdict(8, 0.5), verdict(16, 0.6), verdict(32, 0.2)]
    assert front(good) == [good[0], good[2]]
    drawn = plot(good, [verdict(4, 2.0, "slow")], 1000)
    assert [drawn.count(mark) for mark in ("x\n", "O", " o")] == [1, 2, 1]
    assert plot([], [], 1) == ""


def test_tokens_are_a_mean_and_a_deviation() -> None:
    assert token_count("4000") == token_count("4000+-0")
    assert token_count("4000 \u00b1 1000") == (4000, 1000)
    assert token_count("4000+-1000").most == 7000
