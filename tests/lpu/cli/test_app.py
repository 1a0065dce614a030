import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lpu import api
from lpu.cli import app as cli
from lpu.cli.terminal import Bar, Terminal

QUAD = ["--rack", "quad", "--context", "32"]
STEPS = ("capture", "blocks", "number", "place", "schedule", "memory", "assemble")


def lpu(*words: str) -> int:
    return cli.main(list(words))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cli") / "tiny"
    api.save_program(api.compile("llama-tiny", rack="quad", context=(32,)).program, folder)
    return str(folder)


def one_object(capsys: pytest.CaptureFixture[str], schema: str) -> dict[str, Any]:
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    body = json.loads(out)
    assert body["schema"] == schema
    return body


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom lpu.cli.app import main\nmain(['--help'])\n"
        "assert not {'jax', 'flax', 'numpy', 'pydantic', 'rich.console'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "certify" in done.stdout


@pytest.mark.slow
def test_every_verb_has_help_json_and_debug(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in [
        "compile",
        "check",
        "report",
        "bounds",
        "show",
        "trace",
        "run",
        "certify",
        "models",
        "racks",
        "env",
    ]:
        assert lpu(verb, "--help") == 0
        out = capsys.readouterr().out
        assert "--json" in out
        assert "--debug" in out
        assert "--corrupt" not in out


def test_compile_says_what_it_made_and_writes_only_the_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert lpu("compile", "llama-tiny", *QUAD, "--tp", "2", "-o", str(tmp_path / "p")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for text in (
        "llama-tiny, weights seed:0",
        "quad: 4 chips",
        "tp 2 by column",
        "us per token",
        "all 8 rules",
    ):
        assert text in out
    assert "cycles are exact for the stated machine, nothing is measured; assumed: clock_hz, planes" in out
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert api.load_program(tmp_path / "p").manifest.digest in out


@pytest.mark.slow
def test_compile_writes_what_each_step_gives_into_a_folder_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for options in (["--tp", "2", "--objective", "throughput"], ["--tp", "2"]):  # the first texts are more
        assert lpu("compile", "llama-tiny", *QUAD, *options, "--dump-dir", str(tmp_path / "dump")) == 0
    names = sorted(path.name for path in (tmp_path / "dump").iterdir())
    assert names == [*(f"0{i}-{name}.txt" for i, name in enumerate(STEPS, 1)), "lpu-files.json"]
    assert "rms_stat" in (tmp_path / "dump" / "01-capture.txt").read_text()
    capsys.readouterr()
    assert lpu("compile", "llama-tiny", *QUAD, "--dump-dir", str(other)) == 2
    assert (
        "holds notes.txt, which lpu did not write. Move it away, or choose another --dump-dir."
        in capsys.readouterr().err
    )
    assert lpu("compile", "llama-tiny", *QUAD, "--sweep", "planes=4,6", "--dump-dir", str(other)) == 2
    assert "is for one program" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_compile_prints_one_object_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert lpu("compile", "llama-tiny", *QUAD, "--json") == 0
    body = one_object(capsys, "lpu-compile/1")
    (bucket,) = body["contexts"]
    assert bucket["latency_cycles"] > 0
    assert bucket["latency_microseconds"] == bucket["latency_cycles"] * 1e6 / body["clock_hz"]
    assert body["model"]["weights"] == "seed:0"
    assert body["folder"] is None
    assert body["sram_bytes_max"] < body["sram_bytes_chip"]


SAYS = {
    "check": "check: 485 rows, all 8 rules hold",
    "report": "model       llama-tiny",
    "bounds": "context  bound",
}


@pytest.mark.parametrize("verb", SAYS)
def test_verbs_of_a_program_print_text_and_one_object(
    capsys: pytest.CaptureFixture[str], program: str, verb: str
) -> None:
    assert lpu(verb, program) == 0
    out, err = capsys.readouterr()
    assert out.startswith(SAYS[verb])
    assert err == ""
    assert lpu(verb, program, "--json") == 0
    one_object(capsys, f"lpu-{verb}/1")


def test_trace_writes_one_file(capsys: pytest.CaptureFixture[str], program: str, tmp_path: Path) -> None:
    assert lpu("trace", program, "-o", str(tmp_path / "t.json"), "--json") == 0
    assert one_object(capsys, "lpu-trace-file/1")["context"] == 32
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_a_broken_program_exits_4(
    capsys: pytest.CaptureFixture[str], program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = api.load_program(program)
    broken.blocks[1].columns[32].t1[0] -= 1
    monkeypatch.setattr("lpu.folder.load", lambda folder: broken)
    assert lpu("check", program) == 4
    assert "verdict     broken" in capsys.readouterr().out
    assert lpu("check", program, "--json") == 4
    body = one_object(capsys, "lpu-check/1")
    assert not body["ok"]
    assert body["contexts"][0]["violations"] >= 1


def test_run_prints_text_cycles_and_digests(capsys: pytest.CaptureFixture[str], program: str) -> None:
    assert lpu("run", program, "--prompt", "Hi", "--tokens", "3") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "256,72,105 -> " in out
    assert "steps       5 (5 in context 32)" in out
    assert "caution     served systems of the older chip took 2.4 x" in out
    assert lpu("run", program, "--prompt-ids", "256,72,105", "--tokens", "3", "--json") == 0
    body = one_object(capsys, "lpu-run/1")
    assert body["caution_factor"] == 2.4
    assert body["logits_sha256"] in out
    assert body["total_cycles"] == 5 * body["mean_latency_cycles"]
    assert len(body["sequences"][0]["token_ids"]) == 3


def test_options_of_compile_are_refused_for_a_program(
    capsys: pytest.CaptureFixture[str], program: str
) -> None:
    assert lpu("run", program, "--tp", "2") == 2
    assert "--tp: has no meaning" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["models", "racks", "env"])
def test_lists_print_tables_and_one_object(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert lpu(verb) == 0
    out = capsys.readouterr().out
    assert {"models": "llama-3.1-405b", "racks": "lpx-16x16", "env": "contract"}[verb] in out
    assert lpu(verb, "--json") == 0
    one_object(capsys, f"lpu-{verb}/{2 if verb == 'models' else 1}")


def test_an_interrupt_exits_130_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lpu.api.compile", interrupt)
    assert lpu("compile", "llama-tiny", *QUAD, "-o", str(tmp_path / "p")) == 130
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.splitlines()[-1] == "error: interrupted"


def test_a_bug_keeps_its_traceback_and_debug_shows_that_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="is not in the catalog"):
        lpu("compile", "no-such-model", "--debug")
    monkeypatch.setattr("lpu.api.compile", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        lpu("compile", "llama-tiny", *QUAD)


def on_a_terminal(*words: str, **environment: str) -> str:
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "lpu", *words], stdout=slave, env=os.environ | {"TERM": "xterm"} | environment
    ) as process:
        os.close(slave)
        out = b""
        try:
            while part := os.read(master, 65_536):
                out += part
        except OSError:
            pass  # the other end is closed
    os.close(master)
    assert process.returncode == 0
    return out.decode()


@pytest.mark.slow
def test_a_terminal_gets_boxes_and_no_color_is_honoured() -> None:
    rich = on_a_terminal("racks")
    assert "┃" in rich
    assert "\x1b[1m" in rich
    assert "\x1b[3" not in on_a_terminal("racks", NO_COLOR="1").replace("\x1b[3m", "")


def test_a_pipe_gets_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().table(("a", "bb"), [["1", "2"], ["333", "4"]])
    assert capsys.readouterr().out == "a    bb\n1    2\n333  4\n"


def test_the_bar_waits_a_second_and_for_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("lpu.cli.terminal.time.monotonic", lambda: now[0])
    bar = Bar()
    now[0] = 2.0
    bar("run", 0, 2)
    bar.stop()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = Bar()
    bar("run", 1, 2)
    assert capsys.readouterr().err == ""
    now[0] = 4.0
    bar("run", 1, 2)
    bar.stop()
    assert "run" in capsys.readouterr().err


def test_in_a_pipe_a_line_now_and_then_says_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("lpu.cli.terminal.SILENCE_SECONDS", 20.0)
    monkeypatch.setattr("lpu.cli.terminal.time.monotonic", lambda: now[0])
    bar = Bar()
    for second in range(0, 50, 5):
        now[0] = second
        bar("run", second, 50)
    bar.stop()
    assert capsys.readouterr() == ("", "progress: run 20 of 50, 20 s\nprogress: run 40 of 50, 40 s\n")


@pytest.mark.slow
def test_prompts_that_nobody_gave_and_ids_without_text_are_said(
    capsys: pytest.CaptureFixture[str], program: str
) -> None:
    assert lpu("run", program, "--tokens", "1") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "prompt      made up: always the same token ids; give your own with --prompt" in out
    assert "tokenizer   bytes" in out
    assert lpu("run", program, "--tokens", "1", "--json") == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["prompts_from"], body["tokenizer"]) == ("made up", "bytes")
    untold = ["smollm-135m", "--rack", "quad", "--context", "16", "--no-check"]
    assert lpu("run", *untold, "--prompt", "Hi") == 2
    assert "smollm-135m has no tokenizer. Give the prompt as --prompt-ids" in capsys.readouterr().err


def test_another_projects_folder_under_one_of_our_names_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", "import lpu"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"lpu: Python finds another project's 'models' ({tmp_path.resolve()}")


@pytest.mark.slow
def test_a_closed_stdout_is_no_traceback() -> None:
    command = f"{sys.executable} -m lpu racks >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
