import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.sources.error import WeightError
from models.sources.huggingface.folder import open_folder

DATA = Path(__file__).parents[1] / "data"
LLAMA, QWEN3 = DATA / "tiny-llama", DATA / "tiny-qwen3"


def test_cut_and_broken_files_are_named(tmp_path: Path) -> None:
    shutil.copytree(LLAMA, tmp_path / "a")
    file = tmp_path / "a" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(
        WeightError, match=rf"ends at byte {len(whole)}, the file has {len(whole) - 100} bytes"
    ):
        open_folder(tmp_path / "a")
    for cut, message in (
        (whole[:1000], "header of .* bytes in a file of 1000"),
        (b"abc", "in a file of 3 bytes"),
    ):
        file.write_bytes(cut)
        with pytest.raises(WeightError, match=message):
            open_folder(tmp_path / "a")
    file.write_bytes(whole[:8] + b"\xff" * (len(whole) - 8))
    with pytest.raises(WeightError, match="header cannot be read"):
        open_folder(tmp_path / "a")
    file.write_bytes(whole.replace(b"[64,64]", b"[64,65]"))
    with pytest.raises(WeightError, match=r"takes 16384 bytes, F32 \[64, 65\] takes 16640"):
        open_folder(tmp_path / "a")
    file.unlink()
    with pytest.raises(WeightError, match=r"holds neither model.safetensors nor"):
        open_folder(tmp_path / "a")


def test_an_index_that_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    shutil.copytree(QWEN3, folder)
    index = folder / "model.safetensors.index.json"
    placed: dict[str, Any] = json.loads(index.read_text())
    moved = {**placed["weight_map"], "model.norm.weight": "model-00001-of-00003.safetensors"}
    if placed["weight_map"]["model.norm.weight"] == moved["model.norm.weight"]:
        moved["model.norm.weight"] = "model-00002-of-00003.safetensors"
    index.write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(WeightError, match=r"model.norm.weight is not in it"):
        open_folder(folder)
    index.write_text(json.dumps({"weight_map": {**moved, "model.norm.weight": "../x.safetensors"}}))
    with pytest.raises(WeightError, match=r"'../x.safetensors', not a file in the same folder"):
        open_folder(folder)
    index.write_text("{}")
    with pytest.raises(WeightError, match="has no weight_map"):
        open_folder(folder)
    index.write_text(json.dumps(placed))
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightError, match=r"model-00002-of-00003.safetensors: not found"):
        open_folder(folder)
