"""Verbs that write, ended by a signal at a random moment, or two at once: nothing is half-written or lost.

The folder of a case holds what the verb wrote before and a file of the user's. After the signal both are
whole; after the next run nothing else is there. `lpu certify -o` writes as `lpu trace -o` does and is left
out.
"""

import atexit
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from drawn import Draw

from lpu import api
from lpu.cli.app import main
from lpu.compare.results import POINTS, results
from lpu.outputs.ours import LIST, foreign, is_sealed

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGINT)
MOMENTS, PAIRS = 40, 4  # of each verb
SMALL = ("llama-tiny", "--rack", "pair")
AFD = ("afd", "llama-tiny", "--rack", "quad", "--gpus", "1", "--prompt-tokens", "20", "--new-tokens", "2")
VERBS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("compile", *SMALL, "-o", "out"), ("out",)),
    (("compile", *SMALL, "--dump-dir", "out"), ("out",)),
    (("trace", "../program", "-o", "out.json"), ("out.json",)),
    (("convert", "llama-tiny", "-o", "out"), ("out",)),
    (("compare", *SMALL, "--jobs", "1", "--strategies", "contiguous", "-o", "out"), ("out",)),
    ((*AFD, "-o", "out", "--trace", "out.json"), ("out", "out.json")),
    ((*AFD, "--run", "--kv-cache", "out"), ("out",)),
)
CASES = len(VERBS) * (MOMENTS + PAIRS)
NOTES = "notes.txt"


@cache
def home() -> Path:
    """A folder with a program and, of each verb, a folder with what it wrote."""
    folder = Path(mkdtemp(prefix="lpu-killed-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    api.save_program(api.compile("llama-tiny", rack="pair", context=(16,)).program, folder / "program")
    return folder


@cache
def before(verb: int) -> tuple[Path, float]:
    """The folder after an undisturbed run of a verb, and the seconds of a process for it."""
    folder = home() / str(verb)
    folder.mkdir()
    (folder / NOTES).write_text("mine")
    start = time.monotonic()
    _run_again(VERBS[verb][0], folder)
    return folder, time.monotonic() - start + imports()


@cache
def imports() -> float:
    """Seconds that a process takes before its verb begins."""
    start = time.monotonic()
    started(("trace", "program", "-o", "t.json"), home()).communicate()
    return time.monotonic() - start


def started(words: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "lpu", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def hold_killed(case: int) -> str:
    """A verb and a moment, or two runs of it at once, by the number of the case."""
    draw, verb = Draw(case), case % len(VERBS)
    words, outputs = VERBS[verb]
    number = case // len(VERBS)
    old, seconds = before(verb)
    with TemporaryDirectory(dir=home()) as place:
        folder = Path(shutil.copytree(old, Path(place) / "x", symlinks=True))
        shutil.copytree(home() / "program", Path(place) / "program")
        if words[0] == "convert" or draw.below(3) == 0:  # it makes new folders only
            for name in outputs:
                _remove(folder / name)
        known = {name for name in outputs if (folder / name).exists()}
        if number < MOMENTS:
            told = SIGNALS[number % len(SIGNALS)]
            _end(started(words, folder), told, float(draw.random.uniform(0, seconds)))
            _hold(folder, outputs, known, clean=told != signal.SIGKILL)
        else:
            _hold_pair([started(words, folder) for _ in range(2)], exists=words[0] == "convert")
            _hold(folder, outputs, set(outputs), clean=True)
        if words[0] == "convert":
            _remove(folder / "out")
        _run_again(words, folder)
        _hold(folder, outputs, set(outputs), clean=True)
    return "held"


def _end(process: subprocess.Popen[str], told: signal.Signals, seconds: float) -> None:
    time.sleep(seconds)
    process.send_signal(told)
    process.communicate(timeout=60)


def _hold_pair(both: list[subprocess.Popen[str]], exists: bool) -> None:
    """One wins; the other wins after it, or says in a line that it lost."""
    said = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, said
    for code, text in zip(codes, said, strict=True):
        if code:
            errors = [line for line in text.splitlines() if line.startswith("error: ")]
            assert code == 2, text
            assert len(errors) == 1, text
            assert "another " in errors[0] or (exists and "exists already" in errors[0]), text
            assert "Traceback" not in text


def _hold(folder: Path, outputs: Sequence[str], known: set[str], clean: bool) -> None:
    """What is there is whole, the user's file as it was; if clean, nothing else is there."""
    assert (folder / NOTES).read_text() == "mine"
    names = set(os.listdir(folder))
    assert known <= names, names
    if clean:
        assert names <= {NOTES, *outputs}, names
    for name in outputs:
        if name in names:
            _hold_whole(folder / name)


def _hold_whole(path: Path) -> None:
    if path.is_file():
        assert is_sealed(path)
    elif (path / POINTS).exists():
        with results(path):
            pass
    elif any(path.iterdir()):
        assert not foreign(path), foreign(path)
        files = json.loads((path / LIST).read_text())["files"]
        assert all((path / name).is_file() for name in files)


def _run_again(words: Sequence[str], folder: Path) -> None:
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(list(words)) == 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
