"""`lpu replay` end to end on a small machine."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from slow import slow

from compiler.errors import CapacityError, CompileError
from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from compiler.source import Source, Traced
from lpu import api
from lpu.afd.mode import Mode
from lpu.afd.modes.afd import Afd
from lpu.afd.modes.draft import Draft
from lpu.afd.modes.pd import Pd
from lpu.afd.options import Gpus, Wanted
from lpu.afd.turn import Turn
from lpu.api import afd
from lpu.cli import app as cli
from lpu.gpu.request import Request
from lpu.traffic.machine import ddr5_of
from lpu.traffic.options import ReplayOptions, TrafficGpus
from lpu.traffic.replay import replay
from lpu.traffic.trace import PromptBlocks, Trace

DRAWN = """
requests: 400
arrivals: {kind: poisson, rate: 9000}
input: {kind: normal, mean: 60, sd: 20, most: 100}
output: {kind: exponential, mean: 20, most: 28}
"""
FOLDERS = Path(__file__).parents[2] / "models/data/variants"
TINY = ["llama-tiny", "--rack", "quad", "--gpus", "2", "--context", "64,128", "--batch", "2"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a file of distributions."""
    monkeypatch.chdir(tmp_path)
    Path("drawn.yaml").write_text(DRAWN)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["replay", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_replay_leaves_its_report_and_every_request(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "drawn.yaml", *TINY, "--ttft-ms", "0.3", "-o", "out", "--seeds", "2")
    assert json.loads(Path("out/replay.json").read_text())["spans_seconds"] == found["spans_seconds"]
    rows = list(csv.DictReader(Path("out/requests.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["0"] * 400 + ["1"] * 400
    good = [row for row in rows if float(row["ttft_us"]) <= 300]
    assert found["good_share"] == len(good) / 800
    assert 0 < found["good_share"] < 1
    assert found["bucket_changes"] > 0
    assert found["label"].startswith("projection")
    for row in rows:
        moments = [int(row[name]) for name in row if name.endswith("_cycle")]
        assert moments == sorted(moments)


@pytest.mark.slow
def test_one_process_and_two_leave_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    made = [
        told(capsys, "drawn.yaml", *TINY, "--seeds", "2", "--jobs", jobs, "-o", f"out{jobs}") for jobs in "12"
    ]
    for one in made:
        del one["folder"]
    assert made[0] == made[1]
    for name in ("requests.csv", "replay.json"):
        assert Path("out1", name).read_bytes() == Path("out2", name).read_bytes()


@pytest.mark.parametrize("model", ["llama-tiny", slow(str(FOLDERS / "jamba")), str(FOLDERS / "mamba2")])
def test_a_request_alone_takes_what_afd_says(model: str) -> None:
    """A queue of one: TTFT and TPOT are those of `lpu afd --mode pd`, which shares the arithmetic of time."""
    Path("one.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,40,9\n")
    found = replay("one.csv", model, rack="quad", gpus=TrafficGpus(gpus=1), context=64)
    alone = afd(
        model,
        Request(prompt_tokens=40, new_tokens=9),
        mode=Pd(),
        gpus=Gpus(gpus=1),
        rack="quad",
        wanted=Wanted(),
        context=64,
    )
    clock = 2e-9  # cycles are rounded up where spans meet
    assert found.spans["TTFT"].mean == pytest.approx(alone.turns[0].ttft / 1e12, abs=clock)
    assert found.spans["TPOT"].mean == pytest.approx(alone.turns[0].tpot / 1e12, abs=clock)


def test_a_prompt_of_a_model_with_states_goes_on_behind_those_that_are_kept() -> None:
    """In 16s: the second parts from the first behind one; the third goes on there; the last repeats it."""
    rows = [[1, 2, 3], [1, 4, 5], [1, 6, 7], [1, 6, 7]]
    blocks = PromptBlocks(tokens=16, starts=np.arange(5) * 3, ids=np.array(rows).reshape(-1))
    arrivals, lengths = np.arange(4) * 10**9, np.full(4, 40)
    trace = Trace(name="parted", arrivals=arrivals, inputs=lengths, outputs=np.full(4, 2), blocks=blocks)
    about: Any = {"rack": "quad", "context": 64, "gpus": TrafficGpus(gpus=1)}
    found = replay(trace, str(FOLDERS / "mamba2"), **about)
    assert found.hits == 0 + 0 + 1 + 2
    small = replay(trace, str(FOLDERS / "mamba2"), asked=ReplayOptions(cache="none"), **about)
    assert small.hits == 0
    assert found.spans["TTFT"].mean < small.spans["TTFT"].mean
    wrong = (
        (ReplayOptions(slot_cache=True), "a slot has those behind its last token only"),
        (ReplayOptions(host_blocks=3), "keeps states, which lie in HBM only, --host-blocks is 3"),
    )
    for asked, why in wrong:
        with pytest.raises(CompileError, match=why):
            replay(trace, str(FOLDERS / "mamba2"), asked=asked, **about)


@pytest.mark.parametrize("mode", [Afd(), Draft(drafter="llama-tiny", drafts=3)], ids=["afd", "draft"])
def test_a_request_alone_takes_what_afd_says_in_every_mode(mode: Mode) -> None:
    """Steps are those of the next of 16 lengths of KV: 44 to 47 tokens of 64 have that of 48."""
    Path("one.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,44,4\n")
    about: Any = {"rack": "quad", "context": 64, "batch": 2}
    found = replay("one.csv", "llama-tiny", gpus=TrafficGpus(gpus=1), mode=mode, **about)

    def alone(prompt: int, batch: int) -> Turn:
        request = Request(prompt_tokens=prompt, new_tokens=4, batch=batch)
        return afd("llama-tiny", request, mode=mode, gpus=Gpus(gpus=1), rack="quad", context=64).turns[0]

    assert found.spans["TTFT"].mean == pytest.approx(alone(44, 1).ttft / 1e12, abs=2e-9)
    later = alone(46, 2)  # the mean length of its KV is 48
    assert found.spans["TPOT"].mean == pytest.approx(later.tpot / 1e12, abs=2e-9)
    assert found.to_json()["kind"]["tpot"] == "modelled"
    assert dict(found.machine)["mode"] == mode.words()


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_second_turn_in_the_slot_of_the_first_is_shorter(gpus: int) -> None:
    """Two turns of one conversation, in blocks of 16 tokens that no other cache holds."""
    blocks = PromptBlocks(tokens=16, starts=np.array([0, 2, 5]), ids=np.array([1, 2, 1, 3, 4]))
    arrivals, inputs, outputs = np.array([0, 10**9]), np.array([20, 40]), np.array([2, 2])
    turns = Trace(name="two", arrivals=arrivals, inputs=inputs, outputs=outputs, blocks=blocks)
    about: Any = {"rack": "quad", "context": 64, "batch": 2, "gpus": TrafficGpus(gpus=gpus)}
    plain, kept = (
        replay(turns, "llama-tiny", asked=ReplayOptions(slot_cache=keep, cache="none"), **about)
        for keep in (False, True)
    )
    assert (plain.kept, plain.hits, kept.kept, kept.hits) == (0, 0, 1, 1)
    assert [one.name for one in kept.resources] == ["slots", *(["gpus", "sram", "nics"] if gpus else [])]
    first, second = plain.spans["TTFT"].most, kept.spans["TTFT"].most
    assert second == pytest.approx(first * 24 / 40, rel=0.01) if not gpus else second < first


def test_without_gpus_prompts_are_taken_in_the_slots() -> None:
    found = replay(
        "drawn.yaml", "llama-tiny", rack="quad", gpus=TrafficGpus(gpus=0), asked=ReplayOptions(queue=3)
    )
    assert found.basis == "exact for the stated machine"
    assert found.refused
    assert found.served + found.refused == 400


def test_a_block_out_of_the_ddr5_takes_the_cycles_of_its_schedule() -> None:
    """16 tokens of a word for each of two KV heads on a chip, of four layers, 38 cycles a word."""
    blocks = PromptBlocks(tokens=16, starts=np.array([0, 2, 4, 6]), ids=np.array([1, 2, 7, 8, 1, 2]))
    arrivals, inputs = np.arange(3) * 10**9, np.full(3, 32)
    trace = Trace(name="ddr5", arrivals=arrivals, inputs=inputs, outputs=inputs // 16, blocks=blocks)
    about: Any = {"rack": "quad", "context": 64, "gpus": TrafficGpus(gpus=0)}
    options, asked = CompileOptions(tp=2, pp=1), ReplayOptions(ddr5_blocks=9)
    found = replay(trace, "llama-tiny", options=options, asked=asked, **about)
    (part,) = [one for one in found.resources if one.name == "ddr5"]
    cycles = 16 * 2 * 4 * 38
    said = f"{cycles:,} cycles each (exact for the stated machine), modelled 1,920"
    assert part.remark == f"2 prefix blocks into slots, {said}"


def test_waves_take_no_kv_from_outside_so_their_ddr5_is_modelled() -> None:
    asked = api.open_model("llama-tiny", context=64)
    waves = api.compile(asked, rack="quad", tp=2, pp=1, objective="throughput", prove=False).program
    tier = ddr5_of(waves, 9, 16)
    assert tier is not None
    assert str(tier).startswith("1,920 cycles each (modelled: keeps KV of ")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["drawn.yaml", *TINY, "--cache", "some"], "'some' is none of hbm"),
        (["drawn.yaml", *TINY, "--ttft-ms", "-1"], "is -1, must be above 0"),
        (["drawn.yaml", *TINY, "--pictures"], "no folder to draw into"),
        (["drawn.yaml", *TINY, "--seeds", "0"], "--seeds"),
        (["none.csv", *TINY], "none.csv: No such file"),
        (["drawn.yaml", *TINY, "--slot-cache"], "the trace has 0 hash ids"),
        (["drawn.yaml", *TINY[:3], "--gpus", "0", "--share", "load"], "is load, there are 0 GPUs"),
        (["drawn.yaml", *TINY[:3], "--gpus", "0", "--mode", "afd"], "needs GPUs, --gpus is 0"),
        (["drawn.yaml", *TINY, "--mode", "afd", "--host-blocks", "3"], "--host-blocks is 3"),
        (["drawn.yaml", *TINY, "--mode", "draft"], "needs a small model"),
        (["drawn.yaml", *TINY, "--mode", "pd", "--cached-tokens", "3"], "has options of turns"),
        (["drawn.yaml", "bert-tiny", "--rack", "quad", "--context", "64"], "is an encoder"),
        (["drawn.yaml", "no-model"], "no-model"),
    ],
)
def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], why: str) -> None:
    assert why in refused(capsys, 2, "replay", *words)


def test_kv_becomes_fp8_with_a_warning_where_nothing_else_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with a format or a context that the user chose."""
    seen: list[str] = []

    def tight(given: Source | Traced, *rest: Any) -> Program:
        source = given.source if isinstance(given, Traced) else given
        seen.append(source.model.kv)
        if source.model.kv == "fp16":
            raise CapacityError("place", "kv", "needs 2, a chip has 1", "Use fp8.")
        return compile_program(source, *rest)

    monkeypatch.setattr("lpu.traffic.build.compile_program", tight)
    found = replay("drawn.yaml", "llama-tiny", rack="quad", gpus=TrafficGpus(gpus=0))
    assert seen == ["fp16", "fp8"]
    assert "fits only as fp8" in found.warnings[0]
    with monkeypatch.context() as patch:
        patch.setattr("lpu.traffic.build.may_fit", lambda *_: False)
        again = replay("drawn.yaml", "llama-tiny", rack="quad", gpus=TrafficGpus(gpus=0))
    assert seen == ["fp16", "fp8", "fp8"]
    assert again.to_json() == found.to_json()
    with pytest.raises(CapacityError):
        replay("drawn.yaml", "llama-tiny", rack="quad", gpus=TrafficGpus(gpus=0), context=128)
