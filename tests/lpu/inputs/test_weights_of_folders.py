"""Which weights a model gets: a folder's own, none, or drawn ones by name; never drawn ones unasked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from lpu import api
from lpu.cli.run import is_program
from lpu.inputs.document import FileError
from lpu.inputs.files import ModelFile, read_rack
from lpu.inputs.open import open_model, reopen
from models.sources.error import WeightError

LLAMA = Path(__file__).parents[2] / "models" / "data" / "tiny-llama"
INDEX = json.dumps({"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config.json and nothing else."""
    made = tmp_path / "mine"
    made.mkdir()
    shutil.copy(LLAMA / "config.json", made)
    return made


def test_a_folder_without_weights_compiles_and_never_runs(folder: Path) -> None:
    made = api.compile(str(folder), rack="quad", context=[32])
    assert made.program.manifest.model.weights == "none"
    assert "can be compiled, not run" in made.model.notes[0]
    with pytest.raises(FileError, match=r"run: .*mine: no weights to compute with: it holds none"):
        api.run(made, [[1, 2]], tokens=1)
    with pytest.raises(FileError, match=r"certify: .*no weights to compute with"):
        api.certify(str(folder), rack="quad", context=[32])
    with pytest.raises(FileError, match=r"convert: .*no weights"):
        api.save_weights(made.model, folder / "saved")
    with pytest.raises(WeightError, match=r"head.codes: the model has no weights"):
        made.model.weights["head.codes"]


@pytest.mark.slow
def test_a_program_without_weights_runs_with_those_it_is_given(folder: Path) -> None:
    program = api.compile(str(folder), rack="quad", context=[32]).program
    with pytest.raises(FileError, match=r"compiled with weights none. .* or seed:0 for drawn ones"):
        reopen(program.manifest)
    drawn = api.run(program, [[1, 2]], tokens=1, weights="seed:3")
    own = api.run(program, [[1, 2]], tokens=1, weights=f"safetensors:{LLAMA}")
    assert (drawn.weights, own.weights) == ("seed:3", "huggingface tiny-llama")
    direct = api.run(api.compile(str(LLAMA), rack="quad", context=[32]), [[1, 2]], tokens=1)
    assert own.generation.digest == direct.generation.digest


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("pytorch_model.bin", "pytorch_model.bin is pickle, which is never loaded"),
        ("model.pt", "model.pt is pickle"),
        ("weights.gguf", "weights.gguf is GGUF"),
        ("tf_model.h5", "tf_model.h5 is not read"),
        ("adapter_model.safetensors", "adapter_model.safetensors is an adapter"),
        ("consolidated.00.safetensors", "consolidated.00.safetensors is named in the author's own way"),
        ("model-00001-of-00002.safetensors", "neither model.safetensors nor named by"),
    ],
)
def test_weights_that_are_not_read_are_named_and_never_replaced(folder: Path, name: str, word: str) -> None:
    (folder / name).write_bytes(b"\x80\x04never unpickled")
    opened = open_model(str(folder), context=[32])
    with pytest.raises(FileError, match=word):
        opened.need_weights("run")
    assert open_model(str(folder), context=[32], weights="seed:1").about.weights == "seed:1"
    with pytest.raises(FileError, match=word):
        open_model(str(folder), context=[32], weights="safetensors")


def test_an_index_without_its_shards_is_refused(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(INDEX)
    with pytest.raises(FileError, match=r"model-00001-of-00002.safetensors: not found"):
        open_model(str(folder), context=[32])


def test_a_model_file_and_a_record_follow_the_same_rule(folder: Path) -> None:
    file = folder.parent / "mine.yaml"
    file.write_text("model: ./mine\ncontext: 32\n")
    assert open_model(file).about.weights == "none"
    file.write_text("model: ./mine\ncontext: 32\nweights: seed:5\n")
    assert open_model(file).about.weights == "seed:5"
    assert open_model(ModelFile(model=str(folder), context=(32,))).about.weights == "none"
    assert open_model(ModelFile(model="llama-tiny", context=(32,))).about.weights == "seed:0"
    with pytest.raises(FileError, match=r"orbax:PATH or none"):
        open_model("llama-tiny", weights="seed:x")


def test_the_single_file_is_taken_and_the_stale_index_is_named(folder: Path) -> None:
    shutil.copy(LLAMA / "model.safetensors", folder)
    (folder / "model.safetensors.index.json").write_text(INDEX)
    opened = open_model(str(folder), context=[32])
    assert "model.safetensors is taken, as transformers does" in opened.notes[0]
    assert opened.weights["norm.gain"].any()


def beside(at: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[[str], str]:
    """In a folder that holds a Hugging Face folder of that name: the weights of a model by its name."""
    shutil.copytree(LLAMA, at / name)
    monkeypatch.chdir(at)
    return lambda model: str(open_model(model, context=[32]).about.weights)


def test_a_catalog_name_is_the_catalogs_whatever_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = beside(tmp_path, monkeypatch, "llama-tiny")
    assert weights("llama-tiny") == "seed:0"
    assert weights("./llama-tiny") == "huggingface llama-tiny"
    (note,) = open_model("llama-tiny", context=[32]).notes
    assert note.endswith("not the folder of that name here. Write ./llama-tiny for that.")
    assert open_model("./llama-tiny", context=[32]).notes == ()
    shutil.rmtree(tmp_path / "llama-tiny")
    (tmp_path / "llama-tiny").write_text("model: smollm-135m\n")
    assert open_model("llama-tiny", context=[32]).name == "llama-tiny"


def test_other_catalogs_come_before_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama-tiny").mkdir()
    (tmp_path / "llama-tiny" / "manifest.json").write_text("{}")
    (tmp_path / "quad").write_text("name: other")
    monkeypatch.chdir(tmp_path)
    assert read_rack("quad").chips == 4
    assert not is_program("llama-tiny")
    assert is_program("./llama-tiny")


def test_a_tensor_missing_from_the_single_file_is_not_sought_in_the_index(folder: Path) -> None:
    tensors = load_file(LLAMA / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(INDEX)
    with pytest.raises(FileError, match=r"1 tensors that config.json asks for are missing"):
        open_model(str(folder), context=[32])


def test_converted_weights_of_an_fp8_folder_are_those_of_the_folder(tmp_path: Path) -> None:
    fp8 = LLAMA.parent / "variants" / "llama-fp8-channel-modelopt"
    held = open_model(str(fp8), context=[24])
    api.save_weights(held, tmp_path / "orbax")
    again = open_model(str(fp8), context=[24], weights=f"orbax:{tmp_path / 'orbax'}")
    assert again.config == held.config
    assert again.config is not None
    assert again.config.column_scales == "f32"
    path = "layers.0.ffn.up"
    assert (again.weights[f"{path}.scale"] == held.weights[f"{path}.scale"]).all()
    assert (again.weights[f"{path}.codes"] == held.weights[f"{path}.codes"]).all()
    assert (again.weights.plain(f"{path}.codes") == held.weights.plain(f"{path}.codes")).all()
