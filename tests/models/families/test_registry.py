import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from compiler.errors import OptionError
from fabric.catalog import gpu_spec
from lpu import api
from lpu.afd.machines import config_of as gpu_numbers
from lpu.cli import app as cli
from lpu.decode.decoders import machine_of, reference_decode, restart
from lpu.decode.generate import generate
from lpu.gpu.breakdown import Breakdown
from lpu.gpu.families import registry as families
from lpu.gpu.families.llama import LlamaLaunches
from lpu.gpu.launches import Launches
from lpu.gpu.pool import GpuPool
from models import extensions
from models.catalog import catalog
from models.config import TransformerConfig
from models.families import registry
from models.families.registry import UnknownFamilyError, config_of, family_of
from models.step import family_step

HERE = Path(__file__).parent
KEYS = {"model_type": "toy-j", "n_layer": 2, "n_head": 4, "n_embd": 128, "vocab_size": 200, "n_positions": 64}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Hugging Face folder of a model of `toy_family`, an extension that child processes import too."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.chdir(HERE)
    monkeypatch.setenv(extensions.VARIABLE, "toy_family")
    extensions.load_extensions()
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(KEYS))
    rng = np.random.default_rng(0)
    config = config_of(config_fields())
    shapes = {one.name: one.shape for one in family_of(config).tensors(config)}
    held = {name: rng.standard_normal(shape, np.float32) / 11 for name, shape in shapes.items()}
    save_file(held, folder / "model.safetensors")
    return folder


def config_fields() -> dict[str, Any]:
    made_up = {"rope_theta": 1e4, "eps": 1e-5, "source": "made up for tests", "max_context": 64}
    sizes = {"layers": 2, "hidden": 128, "heads": 4, "kv_heads": 4, "head_dim": 32, "ffn": 256, "vocab": 200}
    return {"name": "toy", "family": "toy", "tied": False, **made_up, **sizes}


@pytest.mark.slow
def test_a_family_from_one_file_reads_compiles_and_runs_with_the_bits_of_its_module(toy: Path) -> None:
    made = api.compile(toy, rack="pair", context=[16])
    assert made.model.config == config_of(config_fields())
    assert made.model.about.weights.startswith("huggingface")
    ways = {
        "the machine": restart(machine_of(made.program, made.model, stream=False)),
        "the machine, call by call": restart(machine_of(made.program, made.model, stream=True)),
        "the module": reference_decode(made.model),
        "the module, layer by layer": reference_decode(made.model, stream=True),
    }
    found = {name: generate(decode, [[3, 5, 7]], 4, 1).digest for name, decode in ways.items()}
    assert len(set(found.values())) == 1, found


@pytest.mark.slow
def test_a_program_of_a_family_is_run_again_by_its_manifest(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--rack", "pair", "--context", "16", "--weights", "seed:1", "-o", str(tmp_path / "program")]
    assert cli.main(["compile", str(toy), *words]) == 0
    prompt = ["--tokens", "2", "--prompt-ids", "3,5", "--json"]
    capsys.readouterr()
    assert cli.main(["run", str(tmp_path / "program"), *prompt]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert cli.main(["run", str(toy), *words[:-2], *prompt]) == 0
    assert json.loads(capsys.readouterr().out)["logits_sha256"] == kept["logits_sha256"]


@pytest.mark.slow
def test_the_certificate_of_a_family_holds_in_child_processes_too(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other layouts and placements are compared in tests of their own."""
    monkeypatch.setattr("lpu.certify.certify.variants", lambda *_: [])
    words = [
        "certify",
        str(toy),
        "--rack",
        "pair",
        "--context",
        "16",
        "--tokens",
        "2",
        "--json",
        "--no-plain",
    ]
    assert cli.main(words) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["bits_equal"]
    children = [one for one in body["comparisons"] if "hash seed 1" in one["name"]]
    assert [one["equal"] for one in children] == [True]


def test_gpu_times_of_layers_that_nobody_described_are_refused(toy: Path) -> None:
    model = api.open_model(toy, context=[16])
    with pytest.raises(OptionError, match="nothing says what GPUs launch for models of family 'toy'"):
        gpu_numbers(model)


def test_a_family_from_outside_says_what_gpus_launch(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fused(LlamaLaunches):
        def ffn_half(self, on: Launches, config: TransformerConfig, kind: str, rows: int) -> Breakdown:
            return on.breakdown(on.product("fused", rows, 3 * config.ffn, config.hidden))

    monkeypatch.setattr(families, "FAMILIES", dict(families.FAMILIES))
    families.register("toy", Fused())
    config = gpu_numbers(api.open_model(toy, context=[16]))
    pool = GpuPool(spec=gpu_spec("h200"))
    assert [op.name for op in pool.ffn_layer(config, 1).ops] == ["fused"]
    assert pool.step(config, 1, 16).seconds > pool.ffn_layer(config, 1).seconds
    with pytest.raises(ValueError, match="'toy' are stated already"):
        families.register("toy", Fused())


def test_names_and_model_types_belong_to_one_family(toy: Path) -> None:
    family = registry.FAMILIES["toy"]
    with pytest.raises(ValueError, match=r"toy of toy_family and toy of toy_family share name 'toy'"):
        registry.register(family)
    other = dataclasses.replace(family, name="other", model_types={"llama": family.model_types["toy-j"]})
    with pytest.raises(ValueError, match="and other of toy_family share model_type 'llama'"):
        registry.register(other)


def test_an_unknown_family_is_named_with_the_known_ones() -> None:
    config = dataclasses.replace(catalog("llama-tiny"), family="nobody")
    with pytest.raises(UnknownFamilyError, match="family 'nobody' is none of llama"):
        family_step(config, batch=1, context=16)


def test_the_fields_of_a_model_make_it_again_and_leave_out_the_default_family() -> None:
    for name in ("llama-3.1-8b", "qwen3-8b"):
        fields = json.loads(json.dumps(catalog(name).to_fields()))
        assert "family" not in fields
        assert config_of(fields) == catalog(name)
