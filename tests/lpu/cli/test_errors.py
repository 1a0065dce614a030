import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from safetensors.numpy import load_file, save_file
from slow import slow

from lpu import api
from lpu.cli import app as cli

FIXTURES = Path(__file__).parents[2] / "models" / "data"
QUAD = ["--rack", "quad"]
SINE_LINE = ((Path(__file__).parents[1] / "own_models.py").read_text().split("jnp.sin")[0]).count("\n") + 1


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder from which `own_models` can be imported; what a verb leaves there is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    return tmp_path


@pytest.mark.parametrize(
    ("code", "words", "texts"),
    [
        (2, ["compile", "llama-tinny"], ["'llama-tinny' is not in the catalog. Did you mean llama-tiny?"]),
        (2, ["compile", "llama-tiny", "--rack", "quda"], ["rack: 'quda'", "Did you mean quad?"]),
        (2, ["compile", "no.yaml"], ["no.yaml: No such file"]),
        (
            2,
            ["run", "llama-tiny", "--rack", "quad", "--stop", ""],
            ["--stop is empty, which every text holds"],
        ),
        (2, ["compile", "./no-folder"], ["model: ./no-folder: there is no such folder or file"]),
        (2, ["compile"], ["usage: Missing argument 'MODEL'", "lpu compile --help"]),
        (2, ["compile", "llama-tiny", "--frob"], ["usage: ", "--frob"]),
        (2, ["frob"], ["usage: ", "frob"]),
        (2, ["compile", "llama-tiny", "--layout", "diagonal"], ["'diagonal' is none of column, row, 2d"]),
        (2, ["compile", "llama-tiny", "--tp", "0"], ["--tp"]),
        (2, ["compile", "llama-tiny", "--context", "1,x"], ["'--context': '1,x' is no list of numbers"]),
        (2, ["compile", "llama-tiny", "--context", "64,32"], ["context: is [64, 32], needs ascending"]),
        (2, ["compile", "llama-tiny", "--kv", "fp4"], ["kv: is 'fp4'"]),
        (2, ["compile", "llama-tiny", "--weights", "seed:x"], ["weights: 'seed:x' is none of seed:N"]),
        (2, ["compile", "llama-tiny", "--weights", "orbax:nowhere"], ["weights: nowhere: is not there"]),
        (2, ["compile", "llama-tiny", *QUAD, "--tp", "5"], ["--tp 5: is above the 4 chips of quad"]),
        (
            3,
            ["compile", "llama-tiny", *QUAD, "--tp", "4", "--fault", "sram:2/0x400+1561000"],
            ["chip 2 has 499520000 bad bytes of 500000000; without such chips: --tp 4: is above the 3 chips"],
        ),
        (2, ["compile", "llama-tiny", *QUAD, "--pp", "9"], ["--pp 9: there ", "Give --pp "]),
        (
            2,
            ["compile", "llama-tiny", "--context", "512"],
            ["context 512", "longest, 256. Give --context 256"],
        ),
        (
            2,
            ["compile", "llama-3.1-405b", *QUAD, "--placement", "contigous"],
            ["placement 'contigous': is unknown. Choose one of"],
        ),
        slow(
            3,
            ["compile", "llama-2-70b", *QUAD],
            ["quad", "68,713.2 MB", "138 chips", "the rack has 4", "Use a rack of"],
        ),
        (3, ["compile", "llama-2-70b", *QUAD, "--tp", "4", "--pp", "1"], ["MB", "500.0 MB", "Raise --"]),
        slow(
            3, ["compile", "llama-3.1-405b", "--rack", "pair"], ["808 chips of 500.0 MB", "no --tp fits pair"]
        ),
        (2, ["compile", "llama-tiny", *QUAD, "-o", ""], ["-o names nothing"]),
        (
            2,
            ["compile", "llama-tiny", *QUAD, "--tp", "many"],
            ["'many' is neither a positive count"],
        ),
        (2, ["compile", "no_such_module:x"], ["No module named 'no_such_module'"]),
        (2, ["compile", "own_models:nothing"], ["has no attribute 'nothing'"]),
        (2, ["compile", "own_models:NUMBER"], ["is int, not a callable"]),
        (3, ["compile", "own_models:raising"], ["raised RuntimeError: no such thing", "own_models.py:"]),
        (
            3,
            ["compile", "own_models:only_logits", "--context", "16"],
            ["token (1, 259) float32", "Return (logits"],
        ),
        (
            3,
            ["compile", "own_models:sine", "--context", "16", *QUAD],
            ["primitive 'sin'", f"own_models.py:{SINE_LINE}", "module 'head.extra'"],
        ),
        (2, ["check", "nowhere"], ["nowhere"]),
        (2, ["run", "llama-tiny", *QUAD, "--prompt-ids", "1,x"], ["'1,x' is no list of token ids"]),
        (2, ["run", "llama-tiny", *QUAD, "--prompt-ids", "259"], ["token 259, the vocabulary has 0 to 258"]),
        (2, ["run", "llama-tiny", *QUAD, "--tokens", "999"], ["need a context of 1002, compiled is 256"]),
        (2, ["run", "smollm-135m", "--prompt", "Hi"], ["smollm-135m has no tokenizer", "--prompt-ids"]),
        (
            2,
            ["run", "llama-tiny", "--batch", "1", "--prompt", "a", "--prompt", "b"],
            ["2 prompts", "batch of 1"],
        ),
        (2, ["certify", "llama-tiny", *QUAD, "--tokens", "999"], ["compiled is 256"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], code: int, words: list[str], texts: list[str]
) -> None:
    line = refused(capsys, code, *words)
    for text in texts:
        assert text in line


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("model: llama-tiny\nbatches: 2\n", "m.yaml:2:1: batches: is no key here. Did you mean batch?"),
        ("model: llama-tiny\nbatch: two\n", "m.yaml:2:1: batch: "),
        ("model: llama-tiny\nkv: fp16\nmodel: llama-tiny\n", "m.yaml:3:1: model: is there twice"),
        ("batch: 2\n", "m.yaml:1:1: model: is required"),
        ("model: [llama-tiny\n", "m.yaml:2:1: "),
        ("model: llama-tinny\n", "m.yaml:1:1: model: 'llama-tinny' is not in the catalog"),
    ],
    ids=["key", "type", "twice", "missing", "syntax", "unknown model"],
)
def test_a_model_file_is_refused_with_its_line_and_column(
    capsys: pytest.CaptureFixture[str], folder: Path, text: str, place: str
) -> None:
    (folder / "m.yaml").write_text(text)
    assert place in refused(capsys, 2, "compile", "m.yaml", *QUAD, "-o", "out")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "p"
    api.save_program(api.compile("llama-tiny", rack="pair", context=(16,)).program, path)
    return path


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def altered(path: Path) -> None:
    with np.load(path) as arrays:
        held = dict(arrays)
    name = next(name for name in sorted(held) if name.endswith(".t0") and held[name].size)
    held[name] = held[name] + 1
    np.savez_compressed(path, **held)


@pytest.mark.parametrize("verb", ["check", "run", "report", "bounds"])
@pytest.mark.parametrize(
    ("name", "spoil", "text"),
    [
        ("columns.npz", cut, "not a whole program folder"),
        ("columns.npz", altered, "the file was altered"),
        ("columns.npz", Path.unlink, "not a whole program folder"),
        ("manifest.json", cut, ""),
        ("manifest.json", Path.unlink, "not a whole program folder"),
        (
            "manifest.json",
            lambda path: path.write_text(path.read_text().replace("pair", "pare")),
            "seal differs",
        ),
    ],
    ids=["cut", "altered", "gone", "manifest cut", "manifest gone", "manifest altered"],
)
def test_a_spoiled_program_folder_is_refused(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    program: Path,
    verb: str,
    name: str,
    spoil: Any,
    text: str,
) -> None:
    shutil.copytree(program, folder / "p")
    spoil(folder / "p" / name)
    line = refused(capsys, 2, verb, "p")
    assert text in line
    assert "p" in line


@pytest.fixture
def checkpoint(folder: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "tiny-llama", folder / "tiny"))


def test_a_truncated_checkpoint_is_refused(capsys: pytest.CaptureFixture[str], checkpoint: Path) -> None:
    cut(checkpoint / "model.safetensors")
    assert "model.safetensors" in refused(capsys, 2, "compile", "tiny", *QUAD, "-o", "out")


def test_nan_in_a_checkpoint_is_refused_with_its_tensor(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if "q_proj" in name)
    tensors[name] = np.array(tensors[name])
    tensors[name].flat[5] = np.nan
    save_file(tensors, path, {"format": "pt"})
    line = refused(capsys, 2, "run", "tiny", *QUAD, "--context", "16", "--prompt-ids", "1,2", "--tokens", "1")
    assert name in line
    assert "not finite" in line


def test_a_config_that_is_no_llama_is_refused(capsys: pytest.CaptureFixture[str], checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "gptj"}))
    assert "model_type is 'gptj'" in refused(capsys, 2, "compile", "tiny", *QUAD)


@pytest.mark.slow
def test_a_checkpoints_program_asks_for_its_weights_again(
    capsys: pytest.CaptureFixture[str], checkpoint: Path
) -> None:
    assert cli.main(["compile", "tiny", *QUAD, "--context", "16", "-o", "p"]) == 0
    capsys.readouterr()
    run = ["run", "p", "--prompt-ids", "1,2", "--tokens", "1"]
    assert "Give --weights safetensors:PATH" in refused(capsys, 2, *run)
    assert cli.main([*run, "--weights", f"safetensors:{checkpoint}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["weights"] == "huggingface tiny"


def test_a_folder_that_is_not_ours_or_cannot_be_written_is_refused(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").touch()
    words = ["compile", "llama-tiny", *QUAD, "--context", "16", "-o"]
    assert "mine: holds thesis.tex, which lpu did not write" in refused(capsys, 2, *words, "mine")
    (folder / "file").touch()
    assert "file/p: cannot be written" in refused(capsys, 2, *words, "file/p")
    assert "cannot be written" in refused(capsys, 2, "certify", "llama-tiny", *QUAD, "-o", "mine")


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("numpy.savez_compressed", full)
    monkeypatch.setattr("lpu.folder.save", full)
    line = refused(capsys, 2, "compile", "llama-tiny", *QUAD, "--context", "16", "-o", "p")
    assert "No space left on device" in line
