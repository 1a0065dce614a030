"""Damage, sizes and places that nobody means: each is one short line and an exit code, soon."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refused

from lpu import api
from lpu.cli import app as cli

CONFIG = Path(__file__).parents[2] / "models" / "data" / "tiny-llama" / "config.json"
TINY = ["llama-tiny", "--rack", "quad"]
LONG = "x" * 300
HUGE = str(10**18)
RING = "name: x\nforward_ns: 1\nlevels: [{name: t, kind: ring, size: 4, lanes: 1, hop_ns: 1}]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compile", *TINY, "--batch", HUGE], f"batch: is {HUGE}, needs 1 to 65536"),
        (["run", *TINY, "--batch", HUGE], f"batch: is {HUGE}, needs 1 to 65536"),
        (["afd", *TINY, "--batch", HUGE], f"batch: is {HUGE}, needs 1 to 65536"),
        (["compile", *TINY, "--context", HUGE], f"context: is {HUGE}, needs at most"),
        (["compile", *TINY, "--tp", HUGE], f"--tp: is {HUGE}, must be at most"),
        (["compile", *TINY, "--objective", "throughput", "--users", HUGE], f"--users: is {HUGE}, must be"),
        (["compile", *TINY, "--weights", f"seed:{'9' * 5000}"], "is none of seed:N"),
        (["run", *TINY, "--tokens", HUGE], f"need a context of {10**18 + 3}"),
        (["afd", *TINY, "--turns", HUGE], f"--turns is {HUGE}, must be at most 1000"),
        (["compare", *TINY, "--seeds", HUGE], f"--seeds is {HUGE}, must be at most 10000"),
        (["compile", LONG], "File name too long"),
        (["compile", f"{LONG}.yaml"], "File name too long"),
        (["compile", f"{LONG}:factory"], "File name too long"),
        (["run", LONG], "File name too long"),
        (["check", LONG], "File name too long"),
        (["compile", "llama-tiny", "--rack", LONG], "File name too long"),
        (["compile", *TINY, "-o", LONG], "File name too long"),
        (["compile", *TINY, "--dump-dir", LONG], "File name too long"),
        (["compile", *TINY, "--weights", f"orbax:{LONG}"], "File name too long"),
        (["compile", *TINY, "--placement", LONG], "is unknown"),
        (["compare", *TINY, "-o", LONG], "File name too long"),
        (["afd", *TINY, "--gpu", LONG], "File name too long"),
        (["afd", *TINY, "--bridge", LONG], "File name too long"),
        (["afd", *TINY, "--gpu-table", "/dev/zero"], "is longer than"),
        (["compile", *TINY, "-o", "/"], "/: "),
    ],
    ids=lambda value: " ".join(value).replace(LONG, "LONG")[:60] if isinstance(value, list) else "",
)
def test_what_nobody_means_is_one_short_line(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    line = refused(capsys, 2, *words)
    assert said in line
    assert len(line) <= 301


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m", f"model: llama-tiny\nbatch: {HUGE}\n", f"m.yaml:2:1: batch: is {HUGE}, needs 1 to 65536"),
        ("m", f"model: llama-tiny\nbatch: 1{'0' * 5000}\n", "m.yaml:2:"),
        (
            "r",
            RING + "chip: {base: lp30, planes: 3, sources: 0}\n",
            "r.yaml:4:31: chip.sources: needs a list",
        ),
        ("r", RING + "chip: {base: lp30, planes: 3, sources: [0]}\n", "r.yaml:4:"),
        ("r", RING + "chip: lp30\nsources: 0\n", "r.yaml:5:1: sources: "),
        ("r", RING + "chip: lp30\n" + "#" * (1 << 22), "r.yaml: is longer than 4194304 bytes"),
        ("r", "[" * 100_000, "r.yaml:1:1: is nested too deeply"),
    ],
)
def test_a_file_that_nobody_means_is_one_short_line(
    capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    Path(f"{name}.yaml").write_text(text)
    words = ["m.yaml", "--rack", "quad"] if name == "m" else ["llama-tiny", "--rack", "r.yaml"]
    line = refused(capsys, 2, "compile", *words)
    assert said in line
    assert len(line) <= 301


def test_a_rack_file_that_is_a_link_to_zeros_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("zero.yaml").symlink_to("/dev/zero")
    line = refused(capsys, 2, "compile", "llama-tiny", "--rack", "zero.yaml")
    assert "zero.yaml: is longer than 4194304 bytes" in line


@pytest.mark.parametrize(
    ("key", "value", "most"),
    [
        ("hidden_size", 2**63, 2**24),
        ("num_hidden_layers", 10**12, 4096),
        ("vocab_size", 10**15, 2**24),
        ("intermediate_size", 2**62, 2**24),
        ("head_dim", 2**40, 2**24),
    ],
)
def test_a_config_of_numbers_that_no_model_has_is_answered_at_once(
    capsys: pytest.CaptureFixture[str], key: str, value: int, most: int
) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(json.loads(CONFIG.read_text()) | {key: value}))
    line = refused(capsys, 2, "compile", "./model", "--rack", "quad", "--context", "16")
    assert f"is {value}" in line
    assert f"the most is {most}" in line


def test_a_width_that_an_op_of_the_contract_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("model").mkdir()
    config = json.loads(CONFIG.read_text()) | {"hidden_size": 40_000}
    Path("model/config.json").write_text(json.dumps(config))
    words = ["compile", "./model", "--rack", "quad", "--context", "16", "--weights", "seed:0"]
    line = refused(capsys, 3, *words)
    assert "model: prescale: width 40000 is above 32768" in line


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "p"
    api.save_program(api.compile("llama-tiny", rack="pair", context=(16,)).program, path)
    return path


def flipped(data: bytes) -> bytes:
    """A byte of the compressed data of the first member changed: zlib.error."""
    return data[:60] + bytes([data[60] ^ 0xFF]) * 40 + data[100:]


def of_another_method(data: bytes) -> bytes:
    """Every member compressed by a method that there is not: NotImplementedError."""
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        infos = held.infolist()
    out = bytearray(data)
    at = data.index(b"PK\x01\x02")
    for info in infos:
        out[info.header_offset + 8 : info.header_offset + 10] = (99).to_bytes(2, "little")
        out[at + 10 : at + 12] = (99).to_bytes(2, "little")
        at = data.find(b"PK\x01\x02", at + 4)
    return bytes(out)


def of_a_huge_array(data: bytes) -> bytes:
    """An array of 2^60 numbers by its header."""
    made, header = io.BytesIO(), "{'descr': '<i8', 'fortran_order': False, 'shape': (1152921504606846976,), }"
    with zipfile.ZipFile(io.BytesIO(data)) as held, zipfile.ZipFile(made, "w") as out:
        for name in held.namelist():
            text = header.ljust(117) + "\n"
            out.writestr(name, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    return made.getvalue()


@pytest.mark.parametrize("damage", [flipped, of_another_method, of_a_huge_array, lambda data: b""])
@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_damaged_array_file_is_refused(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    program: Path,
    verb: str,
    damage: Callable[[bytes], bytes],
) -> None:
    shutil.copytree(program, folder / "p")
    path = folder / "p" / "columns.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert "not a whole program folder" in refused(capsys, 2, verb, "p")


def test_a_program_of_devices_is_refused(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for name in ("manifest.json", "columns.npz"):
        (folder / "p").mkdir(exist_ok=True)
        (folder / "p" / name).symlink_to("/dev/zero")
        assert "is no file" in refused(capsys, 2, "check", "p")


def test_results_that_are_no_text_are_refused(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    (folder / "r").mkdir()
    (folder / "r" / "points.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "points.jsonl:1: its sha256 is not" in refused(capsys, 2, "compare", *TINY, "-o", "r")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout_is_one_line_and_the_program_stays(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert cli.main(["compile", *TINY, "-o", "p"]) == 2
    err = capfd.readouterr().err
    assert err == (
        "error: stdout: cannot be written: No space left on device. What was saved before stays.\n"
    )
    assert sorted(os.listdir(folder / "p")) == ["columns.npz", "lpu-files.json", "manifest.json"]
    assert api.load_program(folder / "p").manifest.digest
