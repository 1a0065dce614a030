from pathlib import Path

import pytest
from shapes import BIASED, STRETCHED

from lpu import api
from lpu.cli import app as cli
from lpu.inputs.document import FileError
from lpu.inputs.files import ModelFile, read_model
from lpu.inputs.open import open_file
from models.catalog import catalog

SIZES = "layers: 2\nhidden: 128\nheads: 4\nffn: 256\nvocab: 259\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(FileError) as error:
        read_model(path)
    return str(error.value).removeprefix(str(path))


def test_a_geometry_needs_its_sizes_alone(path: Path) -> None:
    path.write_text(SIZES)
    model = api.open_model(path)
    config = model.config
    assert config is not None
    assert (config.name, config.kv_heads, config.head_dim, config.tied) == ("mine", 4, 32, False)
    assert (config.max_context, model.contexts) == (131_072, (1024,))
    assert model.about.weights == "seed:0"


def test_a_geometry_takes_the_other_keys_of_a_model_file(path: Path) -> None:
    path.write_text(SIZES + "batch: 3\ncontext: [32, 64]\nkv: fp8\nweights: seed:5\nffn_down: fp8\n")
    model = api.open_model(path, batch=2)
    assert (model.step.batch, model.contexts, model.step.kv) == (2, (32, 64), "fp8")
    assert model.about.weights == "seed:5"
    assert model.config is not None
    assert model.config.ffn_down == "fp8"


def test_a_copy_of_a_catalog_file_is_that_model_under_another_name(path: Path) -> None:
    from models import catalog as module

    path.write_text((module.FOLDER / "llama-tiny.yaml").read_text())
    config = api.open_model(path).config
    assert config is not None
    assert config.parameters() == catalog("llama-tiny").parameters()


def test_what_is_wrong_is_said_at_its_line(path: Path) -> None:
    assert refused(path, SIZES + "hiden: 3\n").startswith(":6:1: hiden: is no key here. Did you mean hidden?")
    assert "experts: is no key here. family llama has none; these have: " in refused(
        path, SIZES + "experts: 4\n"
    )
    assert "pattern: is no key here. family llama has none; these have: hybrid" in refused(
        path, SIZES + "pattern: [MF]\n"
    )
    assert refused(path, SIZES + "zzz: 3\n").startswith(":6:1: zzz: is no key here. Keys: name, ")
    assert refused(path, SIZES.replace("vocab: 259\n", "")) == ":1:1: vocab: is required"
    assert ":3:1: heads: " in refused(path, SIZES.replace("4", "four"))
    assert "head_dim: is required: hidden 128 is no multiple of heads 3" in refused(
        path, SIZES.replace("heads: 4", "heads: 3")
    )
    assert "layers is 0, the least is 1" in refused(path, SIZES.replace("layers: 2", "layers: 0"))
    assert "rope_theta is nan, it must be finite" in refused(path, SIZES + "rope_theta: .nan\n")
    assert "eps is inf, it must be finite" in refused(path, SIZES + "eps: .inf\n")
    assert "family: 'gru' is none of llama" in refused(path, SIZES + "family: gru\n")
    assert "layers: is no key here" in refused(path, "model: llama-tiny\nlayers: 3\n")
    assert "config: is no key here" in refused(path, "model: llama-tiny\nconfig: {layers: 3}\n")
    assert "weights: model" in refused(path, SIZES + "weights: safetensors\n")


@pytest.mark.slow
def test_a_geometry_is_certified_in_other_processes_too(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(SIZES + "context: 32\n")
    assert cli.main(["certify", str(path), "--rack", "pair", "--tp", "2", "--tokens", "2"]) == 0
    assert "hash seed 1" in capsys.readouterr().out


@pytest.mark.parametrize("context", [(40,), (16, 80)])
def test_a_context_beyond_longropes_original_one_is_said(context: tuple[int, ...]) -> None:
    opened = open_file(ModelFile(model="biased", config=BIASED, context=context))
    said = [note for note in opened.notes if note.startswith("rope: ")]
    assert bool(said) == (context[-1] > STRETCHED.original_max_position)
    assert all("context 80 is above the original 40" in note for note in said)
