"""Made-up program folders: every leaf of the manifest and every array spoiled, with the digest made again.

Whatever a folder holds, every verb that reads one ends with a documented code and at most one short line of
error: no traceback, no warning, no import of code that the user did not name, no hang, no flood of memory.
"""

import atexit
import contextlib
import hashlib
import io
import json
import resource
import shutil
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np
from drawn import Draw

from compiler.moves.handover import compile_egress, compile_ingest
from compiler.options import CompileOptions
from compiler.program import store
from fabric.catalog import bridge_spec
from lpu import api
from lpu.cli import app as cli

SIZE, SECONDS, MEMORY = 6000, 60, 3 << 30
OTHERS = ("moe-tiny", "gpt-oss-tiny", "mla-tiny", "deepseek-tiny")
KINDS = ("step", "batch", "cp", "waves", "hops", "moved", *OTHERS)
IDS = ["--prompt-ids", "1,2", "--tokens", "1"]
VERBS: tuple[tuple[str, ...], ...] = (
    ("check", "p"),
    ("check", "p", "--json"),
    ("prove", "p"),
    ("report", "p"),
    ("bounds", "p", "--json"),
    ("show", "p"),
    ("trace", "p", "-o", "t.json"),
)
RUNS: tuple[tuple[str, ...], ...] = (
    ("run", "p", *IDS),
    ("run", "p", *IDS, "--no-check"),
    ("certify", "p", *IDS, "--no-plain"),
)
"""Verbs that execute, of which a case takes one."""
CODES = (0, 1, 2, 3, 4)
EVIL = "import sys\nsys.stderr.write('imported')\n"
ODD: tuple[Any, ...] = (
    *(None, True, False, "", "x" * 5000, "\n", "\x1b[31m", "é\x00", "\ud800", "evil:factory", "NaN", "1"),
    *(-1, 0, 1, 2, 3, 80, 0.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf"), -(2**63)),
    *(2**31 - 1, 2**31, 2**40, 2**62, 2**63, 10**30, 10**400),
    *([], {}, [[]], [0], [None], {"a": 0}, {"": None}, {"0": 1}, [[0, 0]], [-1] * 3, [2**63]),
)


@cache
def good() -> Path:
    """A folder of each kind that every verb reads well; of this process."""
    home = Path(mkdtemp(prefix="lpu-hostile-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "evil.py").write_text(EVIL)
    made = api.compile("llama-tiny", rack="pair", context=(16,), tp=2)
    api.save_program(made.program, home / "step")
    made = api.compile("llama-tiny", rack="quad", context=(40, 80), batch=2, tp=4, layout="2d", prefill=8)
    api.save_program(made.program, home / "batch", made.prefill)
    made = api.compile("llama-tiny", rack="lpx-tray", context=(90,), kv="fp8", tp=8, cp=2)
    api.save_program(made.program, home / "cp")
    made = api.compile(
        "llama-tiny", rack="quad", options=CompileOptions(tp=2, objective="throughput"), context=[16]
    )
    api.save_program(made.program, home / "waves")
    for name in OTHERS:
        api.save_program(api.compile(name, rack="pair", context=(40,), tp=2).program, home / name)
    decode = api.compile("llama-tiny", rack="pair", context=(40,), tp=2).program
    bridge = bridge_spec("spectrum-x")
    moves = compile_ingest(decode, 20, bridge), compile_egress(decode, 20, bridge)
    api.save_program(decode, home / "moved", None, *moves)
    with contextlib.redirect_stdout(io.StringIO()):
        asked = [
            "afd",
            "llama-tiny",
            "--mode",
            "afd",
            "--rack",
            "quad",
            "--prompt-tokens",
            "8",
            "--new-tokens",
            "4",
        ]
        assert cli.main([*asked, "-o", str(home / "hops")]) == 0
    return home


def hold_hostile(case: int) -> str:
    """Spoils one program by the number of the case, and gives it to a verb; "refused" or "read"."""
    draw = Draw(case)
    with TemporaryDirectory() as place:
        home = Path(place)
        shutil.copytree(good() / KINDS[case % len(KINDS)], home / "p")
        folders = sorted(path.parent for path in (home / "p").rglob("manifest.json"))
        part = draw.among(folders[0], *folders)
        spoil(draw, part)
        if draw.below(8):
            signed(part)
        first = held(home, VERBS[0])
        if first == 2:  # no whole program: every verb says so, and one more shall do
            held(home, draw.among(*VERBS[1:], *RUNS))
            return "refused"
        words = [held(home, verb) for verb in (*VERBS[1:], draw.among(*RUNS))]
    return "read" if {first, *words} == {0} else "refused"


def held(home: Path, verb: tuple[str, ...]) -> int:
    """The exit code of a verb in a folder, once what it wrote and did is found to be in order."""
    out, err = io.StringIO(), io.StringIO()
    said = " ".join(verb)
    with (
        contextlib.chdir(home),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        limited(),
    ):
        warnings.simplefilter("error")
        try:
            code = cli.main(list(verb))
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{said}: {type(error).__name__}: {error}") from error
    assert code in CODES, f"{said}: code {code}"
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
    assert code != 0 or "error" not in err.getvalue(), f"{said}: code 0, {err.getvalue()[:300]}"
    assert code in (0, 1, 4) or len(lines) == 1, f"{said}: code {code}, {err.getvalue()[:600]}"
    assert len(lines) <= 70, f"{said}: {len(lines)} lines, {err.getvalue()[:600]}"
    assert all(len(line) <= 301 for line in lines), f"{said}: {err.getvalue()[:600]}"
    assert out.getvalue() or err.getvalue(), f"{said}: code {code} and no word"
    assert "\x1b" not in out.getvalue() + err.getvalue(), f"{said}: escapes reach the terminal"
    assert not {"evil", "module"} & set(sys.modules), f"{said}: imported what only the program names"
    return code


@contextmanager
def limited() -> Generator[None]:
    """A block that may take SECONDS and MEMORY more than the process has."""

    def late(number: int, frame: FrameType | None) -> None:
        raise RuntimeError(f"no answer after {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, most = signal.signal(signal.SIGALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, most[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, most)
        signal.signal(signal.SIGALRM, before)


def spoil(draw: Draw, folder: Path) -> None:
    """One thing of a folder, or two, changed in place."""
    for _ in range(draw.among(1, 1, 2)):
        draw.among(_leaf, _leaf, _leaf, _array, _array, _file)(draw, folder)


def _leaf(draw: Draw, folder: Path) -> None:
    """A value of the manifest: a place of its shape, then one of those."""
    path = folder / "manifest.json"
    try:
        body = json.loads(path.read_text())
        kinds: dict[str, list[tuple[Any, ...]]] = {}
        for place in places(body):
            kinds.setdefault(_kind(place), []).append(place)
        place = draw.among(*kinds[draw.among(*kinds)])
        *above, key = place
        held = body
        for name in above:
            held = held[name]
        change = draw.below(10)
        if change == 0:
            del held[key]
        elif change == 1 and isinstance(held, list):
            held.insert(key, held[key])
        elif change == 2 and isinstance(held, dict):
            held[draw.among("x", "", "é", "-1", "1e3")] = held.pop(key)
        elif change < 5 and isinstance(held[key], int | float) and not isinstance(held[key], bool):
            held[key] += draw.among(-1, 1, -held[key], 2**20, 2**31, -(2**40))
        elif change == 5 and isinstance(held[key], list | tuple):
            held[key] = draw.among(held[key] * 2, held[key][::-1], held[key][:1], [held[key]])
        else:
            held[key] = draw.among(*ODD)
        path.write_text(json.dumps(body))
    except (ValueError, AttributeError, OverflowError, MemoryError, OSError):
        return  # what a step before has made of it is no JSON


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every part of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*above, key)
        yield from places(part, (*above, key))


def _kind(place: tuple[Any, ...]) -> str:
    """A place without indices: all entries of a list are of one kind."""
    return ".".join("*" if str(key).isdigit() else str(key) for key in place)


def _array(draw: Draw, folder: Path) -> None:
    """A member of the arrays: its numbers, type, shape, presence."""
    path = folder / "columns.npz"
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: np.array(part) for name, part in dict(held).items()}
        name = draw.among(*arrays)
    except Exception:
        return  # a step before has spoiled it
    values = arrays[name]
    wide = values.astype(np.int64) if values.dtype.kind in "iu" else np.zeros(values.shape, np.int64)
    at = draw.below(max(wide.size, 1))

    def cell(value: int) -> np.ndarray:
        made = wide.copy()
        made.reshape(-1)[at : at + 1] = value
        return made

    odd = draw.among(-1, -2, 0, 1, 7, 79, 255, 256, 2**20, 2**31, 2**39, 2**40, 2**41, 3 << 40, 2**62)
    made: Any = draw.among(
        *(lambda: cell(odd), lambda: cell(odd), lambda: cell(-odd), lambda: cell(2**63 - 1)),
        *(lambda: np.full_like(wide, odd), lambda: np.full_like(wide, -(2**63))),
        *(lambda: wide[:-1], lambda: wide[:0], lambda: np.repeat(wide, 2), lambda: wide.reshape(1, -1)),
        *(lambda: wide.astype(float), lambda: np.full(wide.shape, np.nan), lambda: wide.astype(complex)),
        *(lambda: wide.astype(bool), lambda: wide.astype(str), lambda: wide.astype(object)),
        *(
            lambda: wide.astype(">i8"),
            lambda: np.full(wide.shape, 2**64 - 1, np.uint64),
            lambda: np.int64(odd),
        ),
        *(
            lambda: wide.astype("M8[s]"),
            lambda: np.zeros(len(wide) if wide.ndim else 0, "i4,i4"),
            lambda: None,
        ),
        *(lambda: np.random.default_rng(at).permutation(wide.reshape(-1)), lambda: wide + 1),
    )()
    arrays = {key: part for key, part in arrays.items() if key != name}
    if made is not None:
        arrays[name] = made
    if not draw.below(12):
        arrays[draw.among("x", "0.loads", "é", "../x", "0.16.op.npy")] = wide
    held: dict[str, Any] = dict(arrays)
    np.savez_compressed(path, **held)


def _file(draw: Draw, folder: Path) -> None:
    """The bytes of a file, or the file."""
    path = folder / draw.among("columns.npz", "columns.npz", "manifest.json")
    if not path.is_file():
        return
    data = path.read_bytes()
    at = draw.below(len(data) + 1)
    change = draw.below(9)
    if change == 0:
        path.unlink()
    elif change == 1:
        path.unlink()
        path.mkdir()
    elif change == 2 and path.name == "columns.npz":
        _zip(draw, path)
    else:
        path.write_bytes(
            draw.among(
                data[:at],
                b"",
                data[:at] + draw.random.bytes(9) + data[at + 9 :],
                data[:at] + data[at + 40 :],
                data + data,
                b"[" * 100_000,
                b'{"seal": 1, "manifest": ' + b"9" * 10_000 + b"}",
                data.replace(b"1", b"true", 1),
            )
        )


def _zip(draw: Draw, path: Path) -> None:
    """A zip file of members that are no arrays, of one name twice, or of zeros without end."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in draw.among(("0.16.op.npy", "0.16.op.npy"), ("x",), (), ("0.16.op.npy",)):
            out.writestr(name, draw.among(b"", b"\x93NUMPY", b"\0" * (1 << 26)))


def signed(folder: Path) -> None:
    """The seal and, where a compiler could have written such a program, the digest made again."""
    path, found = folder / "manifest.json", []
    real = store.digest

    def spy(program: Any) -> str:
        found.append(real(program))
        return found[-1]

    try:
        body = json.loads(path.read_text())
        body.pop("seal", None)
        _write(path, body)
        with mock.patch.object(store, "digest", spy), contextlib.suppress(Exception):
            store.load(folder)
        if found:
            body["manifest"]["digest"] = found[0]
            _write(path, body)
    except (ValueError, AttributeError, TypeError, KeyError, OSError, RecursionError):
        return


def _write(path: Path, body: dict[str, Any]) -> None:
    seal = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"seal": seal, **body}))


Change = Callable[[Draw, Path], None]
