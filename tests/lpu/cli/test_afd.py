"""`lpu afd` and `lpu ratios` on the command line: what they leave, and mistakes as one line each."""

import json
from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from slow import slow

from compiler.moves.handover import compile_ingest
from compiler.options import CompileOptions
from fabric.catalog import bridge_spec
from lpu import api
from lpu.afd.modes.afd import Afd
from lpu.afd.modes.pd import Pd
from lpu.afd.options import Gpus, Wanted
from lpu.cli import app as cli
from lpu.decode.conversation import Conversation
from lpu.gpu.request import Request

TINY = ["llama-tiny", "--rack", "quad"]
SHORT = ["--gpus", "1", "--prompt-tokens", "20", "--new-tokens", "2"]
BIG = ["llama-3.1-405b", "--rack", "quad"]
ZERO = "name: slow\nlpu_bytes_per_second: 0\nrack_bytes_per_second: 1000\nrack_lpus: 1\nlatency_ns: 1\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run in mode pd leaves: `p` (programs), `t.json` (trace), `kv` (prefixes), `out` (its JSON)."""
    home = tmp_path_factory.mktemp("left")
    words = [
        "--turns",
        "2",
        "--later-tokens",
        "3",
        "--kv-policy",
        "copy-back",
        "--run",
        "--json",
        "--tp",
        "1",
    ]
    places = ["-o", str(home / "p"), "--trace", str(home / "t.json"), "--kv-cache", str(home / "kv")]
    with pytest.MonkeyPatch.context() as patch, (home / "out").open("w") as out:
        patch.setattr("sys.stdout", out)
        assert cli.main(["afd", *TINY, *SHORT, *words, *places]) == 0
    return home


@pytest.fixture(scope="module")
def hops(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of hops."""
    place = tmp_path_factory.mktemp("hops") / "p"
    api.afd(
        "llama-tiny",
        Request(prompt_tokens=8, new_tokens=2, batch=2),
        rack="quad",
        gpus=Gpus(gpus=1),
        mode=Afd(micro_batches=1),
        wanted=Wanted(output=place),
    )
    return str(place)


@pytest.mark.slow
def test_a_run_of_pd_leaves_programs_a_trace_and_prefixes(left: Path) -> None:
    assert sorted(path.name for path in left.iterdir()) == ["kv", "out", "p", "t.json"]
    body = json.loads((left / "out").read_text())
    assert (body["schema"], body["bits"]) == ("lpu-afd/2", "equal")
    assert body["counts"] == {
        "prefilled_tokens": 19 + 3,
        "handed_tokens": 19 + 3,
        "returned_tokens": 2,
        "cached_tokens": 0,
        "steps": 4,
    }
    assert (body["folder"], body["trace"]) == (str(left / "p"), str(left / "t.json"))
    assert json.loads((left / "t.json").read_text())["otherData"]["schema"] == "lpu-afd-trace/1"
    assert len(json.loads((left / "kv" / "prefix.json").read_text())["tokens"]) == 1


@pytest.mark.slow
def test_the_check_of_a_saved_folder_holds_its_hand_over_too(
    left: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", str(left / "p")]) == 0
    assert capsys.readouterr().out.count("(hand-over of KV)") == 3


@pytest.mark.slow
def test_a_hand_over_of_another_program_is_broken(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decode = api.load_program(left / "p")
    other = api.compile(
        "llama-tiny", rack="quad", options=CompileOptions(tp=1), batch=1, context=(22,), kv="fp8"
    )
    ingest = compile_ingest(other.program, 8, bridge_spec("spectrum-x"))
    api.save_program(decode, "q", ingest=ingest)
    assert cli.main(["check", "q"]) == 4
    assert "verdict     broken" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["report", "bounds"])
def test_a_program_that_moves_kv_is_no_step(
    left: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert "moves KV (ingest) and computes no step" in refused(capsys, 2, verb, str(left / "p" / "ingest"))


@pytest.mark.slow
def test_prefixes_of_another_format_model_or_folder_are_refused(
    left: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", "--kv-cache", str(left / "kv")]
    line = refused(capsys, 2, "afd", *TINY, *SHORT, *words, "--kv", "fp8")
    assert "kv format is fp16, this run has fp8" in line
    line = refused(capsys, 2, "afd", *TINY, *SHORT, *words, "--weights", "seed:1")
    assert "weights are " in line
    line = refused(capsys, 2, "afd", *TINY, *SHORT, "--run", "--kv-cache", str(left / "p"))
    assert "is no prefix cache, it holds no prefix.json" in line


@pytest.mark.slow
def test_other_bits_end_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def nothing(*arguments: Any, **options: Any) -> Conversation:
        return Conversation(turns=())

    monkeypatch.setattr(Pd, "converse", nothing)
    monkeypatch.setattr("lpu.afd.bits.reference", nothing)
    assert cli.main(["afd", *TINY, *SHORT, "--run"]) == 0
    assert "bits        equal to the reference" in capsys.readouterr().out
    monkeypatch.setattr("lpu.afd.ask.verdict", lambda *arguments: "turn 1, sequence 0: tokens differ")
    assert cli.main(["afd", *TINY, *SHORT, "--run", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["bits"] == "turn 1, sequence 0: tokens differ"


def test_a_report_of_hops_speaks_of_hops(hops: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", hops]) == 0
    out = capsys.readouterr().out
    assert "latency   " not in out
    assert "per token" not in out
    assert "hops        4 of " in out
    assert "host lanes" in out
    assert "waits for host lanes" in out
    assert cli.main(["report", hops, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert sum(hop["cycles"] for hop in body["hops"]) == body["contexts"][0]["latency_cycles"]
    (used,) = body["occupancy"]
    (lanes,) = (unit for unit in used["units"] if unit["name"] == "host lanes")
    assert sum(lanes["busy_cycles"]) > 0
    assert sum(used["chain_cycles"].values()) == used["cycles"]


def test_bounds_of_hops_are_below_their_cycles(hops: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bounds", hops, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    (cycles,) = body["latency_cycles"].values()
    assert 0 < max(bound["cycles"] for bound in body["bounds"]) <= cycles
    assert cli.main(["bounds", hops]) == 0
    assert f"{cycles:,} cycles of 4 hops one after another" in capsys.readouterr().out


def test_a_trace_of_hops_names_the_host_lanes(hops: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", hops, "-o", "t.json"]) == 0
    events = json.loads(Path("t.json").read_text())["traceEvents"]
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    for event in events:
        if event["name"].startswith(("TAKE", "GIVE")):
            assert names[event["tid"]] == f"host lane {'in' if event['name'].startswith('TAKE') else 'out'}"
    assert sum(name.startswith("host lane") for name in names.values()) == 2


def test_hops_are_not_run_as_a_step(hops: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, 2, "run", hops)
    assert "holds 4 hops of 2 rows, no step that decodes" in line
    assert "lpu afd MODEL --mode afd --run" in line


@pytest.mark.parametrize(
    ("code", "words", "texts"),
    [
        (3, [*BIG, "--gpus", "1"], ["1 x h200: needs 410.3 GB", "126.9 GB are usable"]),
        (3, [*BIG, "--gpus", "7"], ["each of 7 replicas of 1 x h200: needs 410.3 GB"]),
        slow(3, [*BIG, "--gpus", "8"], ["MB of weights need 808 chips of 500.0 MB"]),
        slow(
            3,
            [*BIG, "--gpus", "8", "--mode", "afd", "--batch", "2"],
            ["329834889216 bytes", "have 2000000000"],
        ),
        (2, [*TINY, "--gpus", "0"], ["usage: ", "--gpus"]),
        (
            2,
            [*TINY, *SHORT, "--mode", "afd", "--batch", "3", "--micro-batches", "2"],
            ["--micro-batches 2: a batch of 3"],
        ),
        (
            2,
            [*TINY, *SHORT, "--mode", "afd", "--batch", "5", "--micro-batches", "5"],
            ["1 to 4 of them"],
        ),
        (2, [*TINY, "--gpu", "h20"], ["gpu: 'h20'", "Did you mean h200?"]),
        (2, [*TINY, "--bridge", "spectrum"], ["bridge: 'spectrum'", "Did you mean spectrum-x?"]),
        (2, [*TINY, "--bridge", "zero.yaml"], ["zero.yaml:", "lpu_bytes_per_second"]),
        (2, [*TINY, "--mode", "pdd"], ["'--mode': 'pdd' is none of pd, afd, draft"]),
        (2, [*TINY, "--kv-policy", "copy"], ["'--kv-policy': 'copy' is none of recompute, copy-back"]),
        (2, [*TINY, "--gemm", "fp4"], ["'--gemm': 'fp4' is none of "]),
        (2, [*TINY, "--mode", "afd", "--split", "size"], ["'--split': 'size' is none of role, intens"]),
        (
            2,
            [*TINY, "--mode", "afd", "--threshold", "2"],
            ["--split role with --threshold 2.0: a threshold"],
        ),
        (2, [*TINY, "--mode", "afd", "--split", "intensity"], ["--split intensity with --threshold None"]),
        (2, [*TINY, *SHORT, "--mode", "draft"], ["--mode draft: needs a small model", "--drafter"]),
        (
            2,
            [*TINY, *SHORT, "--mode", "draft", "--drafter", "smollm-135m"],
            ["a vocabulary of 49152 tokens, llama-tiny one of 259"],
        ),
        (
            2,
            [*TINY, *SHORT, "--kv-cache", "kv"],
            ["--kv-cache: holds real bytes", "Add --run."],
        ),
        (2, [*TINY, *SHORT, "--run", "--kv-cache", "file/kv"], ["file/kv: cannot be written", "--kv-cache"]),
        (2, [*TINY, "--prompt-tokens", "1"], ["--prompt-tokens is 1, must be at least 2"]),
        (2, [*TINY, "--queue-seconds", "nan"], ["--queue-seconds is nan"]),
        (2, [*TINY, *SHORT, "--cached-tokens", "19"], ["--cached-tokens is 19, must be 0 to 18"]),
        (2, [*TINY, "--prompt-tokens", "300"], ["context 812 is above the model's longest, 256"]),
        (2, [*TINY, *SHORT, "--context", "16"], ["its turns come to 22 tokens, --context ends at 16"]),
        (2, [*TINY, "--mode", "afd", "--gpu-jitter", "-1"], ["--gpu-jitter is -1.0, must be at least 0"]),
        (2, [*TINY, "--mode", "afd", "--miss-probability", "0"], ["--miss-probability is 0.0"]),
        (2, [*TINY, "--mode", "draft", "--drafts", "0"], ["--drafts: is 0, needs at least 1"]),
        (2, [*TINY, "--trace", "file/t.json"], ["file/t.json: cannot be written. Choose another --trace"]),
        (2, [*TINY, "--trace", ""], ["--trace names nothing"]),
        (2, [*TINY, *SHORT, "-o", "full"], ["full: holds own, which lpu did not write"]),
        (2, [*TINY, *SHORT, "-o", ""], ["-o names nothing"]),
        (2, ["nothing-of-that-name"], ["'nothing-of-that-name' is not in the catalog"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], code: int, words: list[str], texts: list[str]
) -> None:
    (folder / "zero.yaml").write_text(ZERO)
    (folder / "file").write_text("")
    (folder / "full").mkdir()
    (folder / "full" / "own").write_text("")
    line = refused(capsys, code, "afd", *words)
    for text in texts:
        assert text in line


OPTIONS = {
    "pd": ["--kv-policy recompute", "--cached-tokens 2", "--kv-cache kv"],
    "afd": [
        *("--micro-batches 2", "--split role", "--threshold 1", "--ffn-down fp8", "--ffn-up fp16"),
        *("--gpu-jitter 0.1", "--miss-probability 0.01", "--jitter-seed 0"),
    ],
    "draft": ["--drafter llama-tiny", "--drafts 2", "--acceptance 0.5"],
}


@pytest.mark.parametrize(
    ("mode", "owner", "option"),
    [
        (mode, owner, option)
        for owner, options in OPTIONS.items()
        for option in options
        for mode in OPTIONS
        if mode != owner
    ],
)
def test_an_option_of_another_mode_is_refused(
    capsys: pytest.CaptureFixture[str], mode: str, owner: str, option: str
) -> None:
    more = ["--split", "intensity"] if option.startswith("--threshold") else []
    line = refused(capsys, 2, "afd", *TINY, *SHORT, "--mode", mode, *option.split(), *more)
    name = "--split" if more and "--split" in line else option.split()[0]
    assert f"{name}: means nothing in mode {mode}. Use --mode {owner}." in line


@pytest.mark.parametrize(
    ("code", "words", "texts"),
    [
        (2, [*TINY, "--gpus", "8,x"], ["'--gpus': '8,x' is no list of positive counts"]),
        (2, [*TINY, "--gpus", ""], ["'--gpus': '' is no list of positive counts"]),
        (2, [*TINY, "--batches", "0,4"], ["'--batches': '0,4' is no list"]),
        (2, [*TINY, "--micro-batches", "1;2"], ["'--micro-batches': '1;2' is no list"]),
        (
            2,
            [*TINY, "--kv-tokens", "64", "--batches", "3", "--micro-batches", "2"],
            ["[2] parts divide no batch of [3]"],
        ),
        (2, [*TINY, "--kv-tokens", "0"], ["context: is [0]"]),
        (2, [*TINY, "--kv-tokens", "257"], ["context 257 is above the model's longest, 256"]),
        (2, [*TINY, "--target-ms", "0"], ["--target-ms: is 0, must be above 0"]),
        (2, [*TINY, "--target-ms", "nan"], ["--target-ms: is nan, must be above 0"]),
        (2, [*TINY, "--kv-tokens", "64", "--gpu", "h20"], ["Did you mean h200?"]),
        (
            3,
            ["llama-2-7b", "--rack", "quad", "--kv-tokens", "4096"],
            ["4331864064 bytes", "have 2000000000"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_mistake_of_ratios_is_one_line(
    capsys: pytest.CaptureFixture[str], code: int, words: list[str], texts: list[str]
) -> None:
    line = refused(capsys, code, "ratios", *words)
    for text in texts:
        assert text in line


def test_ratios_print_every_point_and_the_best_one(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gpus", "1", "--batches", "2,3", "--micro-batches", "1,2", "--kv-tokens", "64"]
    assert cli.main(["ratios", *TINY, *words]) == 0
    out = capsys.readouterr().out
    assert out.count(" loses") + out.count(" wins") >= 3
    assert "best        1 GPUs : " in out
    assert "projection: no measurement" in out
