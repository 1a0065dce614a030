"""Folders and files that are no model: each is named for what it is, with a remedy, in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lpu import api
from lpu.cli.run import is_program
from lpu.inputs.document import FileError
from lpu.inputs.foreign import foreign

LLAMA = Path(__file__).parents[2] / "models" / "data" / "tiny-llama"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 501272\n"
Make = Callable[[Path], Path]


def holding(*names: str, text: str = "{}") -> Make:
    """A folder with these files."""

    def make(folder: Path) -> Path:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    return make


def cached(inside: str = "", main: str = "abc") -> Make:
    """A folder of the hub's cache with two snapshots, or a folder in it."""

    def make(folder: Path) -> Path:
        repository = folder / "models--acme--tiny"
        for name in ("abc", "aaa"):
            holding(f"snapshots/{name}/config.json")(repository)
        holding("refs/main", text=main)(repository)
        return repository / inside if inside != ".." else folder

    return make


def file(name: str, text: str = "0") -> Make:
    return lambda folder: holding(name, text=text)(folder) / name


def adapter(folder: Path) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "acme/base"}))
    return holding("adapter_model.safetensors", "tokenizer.json")(folder)


CASES: dict[str, tuple[Make, str]] = {
    "pointer in place of config.json": (
        holding("config.json", text=POINTER),
        "Git LFS pointer.*git lfs pull",
    ),
    "pointer": (file("model.safetensors", POINTER), "is a Git LFS pointer.*git lfs pull"),
    "gguf": (file("m.gguf"), "is a GGUF file.* safetensors"),
    "gguf by its first bytes": (file("m", "GGUF0000"), "is a GGUF file"),
    "folder of gguf": (holding("m.Q4_K_M.gguf", "README.md"), r"holds m.Q4_K_M.gguf, a GGUF file"),
    "onnx": (file("m.onnx"), "is an ONNX graph"),
    "folder of onnx": (holding("m.onnx", "tokenizer.json"), "holds m.onnx, an ONNX graph"),
    "pickle": (file("pytorch_model.bin"), "PyTorch pickle, which is never loaded.* safetensors"),
    "folder of pickles": (
        holding("consolidated.00.pth", "params.json"),
        "holds consolidated.00.pth, a PyTorch",
    ),
    "keras": (file("m.h5"), "a model in a format that is not read"),
    "safetensors": (file("model.safetensors"), "is a file of weights. Give the folder"),
    "no config.json": (holding("model.safetensors"), "holds model.safetensors and no config.json"),
    "adapter": (adapter, "is an adapter .LoRA. of acme/base.*Merge it"),
    "broken adapter": (holding("adapter_config.json", text="["), "is an adapter .LoRA., not a model"),
    "cached": (
        cached(),
        r"folder of the hub's cache. Give its snapshot: \S*models--acme--tiny/snapshots/abc$",
    ),
    "cached, no main": (cached(main="zzz"), r"Give its snapshot: \S*/snapshots/aaa$"),
    "snapshots": (cached("snapshots"), r"Give its snapshot: \S*/snapshots/abc$"),
    "refs": (cached("refs"), r"Give its snapshot: \S*/snapshots/abc$"),
    "cache": (cached(".."), r"is the hub's cache, 1 models. Give its snapshot: \S*/snapshots/abc$"),
    "cached without snapshots": (holding("refs/main", "blobs/0"), "holds no snapshot: download"),
    "pipeline": (holding("model_index.json", "unet/config.json"), "is a diffusers pipeline"),
    "tokenizer": (holding("tokenizer_config.json", "tokenizer.json"), "holds a tokenizer only"),
    "converted": (holding("weights.json", "tensors/_METADATA"), r"converted weights.*--weights orbax:"),
    "empty": (lambda folder: folder, "is an empty folder"),
}


@pytest.mark.parametrize(("make", "says"), CASES.values(), ids=CASES)
def test_what_is_no_model_is_named_for_what_it_is(tmp_path: Path, make: Make, says: str) -> None:
    path = make(tmp_path)
    assert not is_program(str(path))
    with pytest.raises(FileError, match=says) as refusal:
        api.open_model(str(path))
    text = str(refusal.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text.replace(str(tmp_path), "")) <= 300
    assert refusal.value.exit_code == 2


def test_a_program_verb_names_it_too(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"program: .* is a folder of the hub's cache"):
        api.load_step(cached()(tmp_path))


def test_a_pointer_in_place_of_weights_is_named_when_they_are_opened(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    shutil.copytree(LLAMA, folder)
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "model.safetensors").write_text(POINTER)
    with pytest.raises(FileError, match=r"model.safetensors: is a Git LFS pointer"):
        api.open_model(str(folder), context=[16])


def test_what_is_not_known_is_left_to_others(tmp_path: Path) -> None:
    assert foreign(holding("notes.txt")(tmp_path)) == ""
    assert is_program(str(tmp_path))
    assert foreign(tmp_path / "missing") == ""
