"""docs/files.md: every key is there; its files and those of the catalogs are read, and fit the schemas."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from fabric.bridge import BridgeSpec
from fabric.chip import ChipSpec
from fabric.gpu import AllReduce, Efficiency, GpuSpec
from fabric.node import MemoryTier, NodeSpec
from fabric.topology import Level, RackSpec
from lpu.cli import app as cli
from lpu.inputs.files import ModelFile, read_bridge, read_chip, read_gpu, read_model, read_node, read_rack
from lpu.inputs.schema import schema
from models.config import TransformerConfig

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "files.md").read_text()
FILES = dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", TEXT, re.DOTALL))
RECORDS = (
    ModelFile,
    TransformerConfig,
    RackSpec,
    Level,
    ChipSpec,
    GpuSpec,
    Efficiency,
    AllReduce,
    BridgeSpec,
    NodeSpec,
    MemoryTier,
)
READERS: dict[str, Any] = {
    "model": read_model,
    "rack": read_rack,
    "chip": read_chip,
    "gpu": read_gpu,
    "bridge": read_bridge,
    "node": read_node,
}
CATALOGS = {
    path: folder.removesuffix("s")
    for folder in ("racks", "chips", "gpus", "bridges")
    for path in sorted((ROOT / "fabric" / "catalog" / folder).glob("*.yaml"))
} | dict.fromkeys(sorted((ROOT / "models" / "catalog").glob("*.yaml")), "model")


@pytest.fixture
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.write_text(FILES[request.param])
    return path


@pytest.mark.parametrize("record", RECORDS)
def test_every_key_is_on_the_page(record: type) -> None:
    missing = [one.name for one in fields(record) if f"`{one.name}`" not in TEXT]
    assert missing == ([] if record is not ModelFile else ["config"])


@pytest.mark.parametrize("file", [name for name in FILES if name.startswith("model")], indirect=True)
def test_a_model_of_the_page_compiles(file: Path, tmp_path: Path) -> None:
    assert cli.main(["compile", str(file), "--rack", "quad", "--tp", "2", "-o", str(tmp_path / "p")]) == 0


@pytest.mark.parametrize("file", [name for name in FILES if name.startswith("rack")], indirect=True)
def test_a_rack_of_the_page_takes_a_program(file: Path, tmp_path: Path) -> None:
    words = ["compile", "llama-tiny", "--context", "32", "--rack", str(file), "--tp", "1", "--pp", "1"]
    assert cli.main([*words, "-o", str(tmp_path / "p")]) == 0


@pytest.mark.parametrize("file", [n for n in FILES if n.startswith(("gpu", "bridge"))], indirect=True)
def test_a_gpu_and_a_bridge_of_the_page_are_used(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = file.name.partition("-")[0]
    words = ["afd", "llama-tiny", "--rack", "quad", "--gpus", "1", "--tp", "2", f"--{kind}", str(file)]
    assert cli.main([*words, "--prompt-tokens", "64", "--new-tokens", "8", "--json"]) == 0
    assert READERS[kind](file).name in capsys.readouterr().out


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.name)
def test_the_files_of_the_catalogs_are_valid_inputs(path: Path) -> None:
    read = READERS[CATALOGS[path]](path)
    if CATALOGS[path] == "model":
        assert read.config is not None
        assert read.config.name == path.stem
    else:
        named = READERS[CATALOGS[path]](path.stem)
        assert getattr(read, "spec", read) == getattr(named, "spec", named)


@pytest.mark.parametrize("kind", READERS)
def test_a_schema_has_the_keys_that_the_reader_takes(kind: str) -> None:
    """All files of the page and of the catalogs, and none with a key more."""
    validator = Draft202012Validator(json.loads(json.dumps(schema(kind))))
    own = [yaml.safe_load(text) for name, text in FILES.items() if name.startswith(f"{kind}-")]
    own += [yaml.safe_load(path.read_text()) for path, one in CATALOGS.items() if one == kind]
    for data in own:
        assert not list(validator.iter_errors(data))
        assert list(validator.iter_errors(data | {"colour": "red"}))


def test_lpu_schema_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema", "rack"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("rack")
    assert cli.main(["schema", "colour"]) == 2
    assert "'colour' is none of model, rack, chip, gpu, bridge" in capsys.readouterr().err
