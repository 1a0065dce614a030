"""Code runs only if its name was typed: what a program, a file or results name imports nothing."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from refusals import refused

from compiler.program.store import load, save, sealed
from lpu import api
from lpu.cli import app as cli
from lpu.compare.results import SCHEMA, results
from lpu.inputs.document import FileError

EVIL = """
from pathlib import Path
import dataclasses
from models.catalog import catalog
from models.families.llama import Llama

Path("imported").touch()

def factory(*, batch, context, kv):
    return Llama(dataclasses.replace(catalog("llama-tiny"), layers=1), batch=batch, context=context, kv=kv)
"""
PAIR = ["--rack", "pair", "--context", "16"]
RUN = ["--prompt-ids", "1,2", "--tokens", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module that says when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("evil", None)
    (tmp_path / "evil.py").write_text(EVIL)
    return tmp_path


def forget(folder: Path) -> None:
    sys.modules.pop("evil", None)
    (folder / "imported").unlink(missing_ok=True)


@pytest.mark.slow
def test_a_program_that_names_a_module_runs_it_only_if_the_name_is_typed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compile", "evil:factory", *PAIR, "-o", "p"]) == 0
    assert (folder / "imported").exists()
    for words in ([], ["--model", "other:factory"]):
        forget(folder)
        capsys.readouterr()
        line = refused(capsys, 2, "run", "p", *RUN, *words)
        assert "evil:factory" in line
        assert "evil" not in sys.modules
        assert not (folder / "imported").exists()
    assert "type its name: --model evil:factory, or add --trust" in refused(capsys, 2, "run", "p", *RUN)
    with pytest.raises(FileError, match="code that would be imported"):
        api.run(api.load_program("p"), [[1, 2]], tokens=1)
    assert not (folder / "imported").exists()
    for words in (["--model", "evil:factory"], ["--trust"]):
        forget(folder)
        assert cli.main(["run", "p", *RUN, *words]) == 0
        assert (folder / "imported").exists()
    for verb in ("check", "report", "bounds", "show"):
        forget(folder)
        assert cli.main([verb, "p"]) == 0
        assert not (folder / "imported").exists()


def test_a_program_whose_manifest_was_made_to_name_a_module_imports_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.save_program(api.compile("llama-tiny", rack="pair", context=(16,)).program, "p")
    made = load(Path("p"))
    about = replace(made.manifest.model, config=None, name="evil:factory")
    options = replace(made.manifest.options, placement="evil:factory")
    evil = replace(made.manifest, model=about, options=options)
    save(sealed(replace(made, manifest=evil)), Path("p"))
    for verb, words in (("run", RUN), ("check", []), ("report", []), ("show", [])):
        cli.main([verb, "p", *words])
        assert "evil" not in sys.modules
    assert not (folder / "imported").exists()


@pytest.mark.parametrize("verb", ["compile", "run", "certify", "compare", "convert", "afd"])
def test_a_model_file_that_names_a_module_imports_it_only_with_trust(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    (folder / "m.yaml").write_text("context: [16]\nmodel: evil:factory\n")
    words = {"convert": ["-o", "w"], "compile": ["--rack", "pair"]}.get(verb, [])
    line = refused(capsys, 2, verb, "m.yaml", *words)
    assert "m.yaml:2:1: model: evil:factory is code that would be imported and run" in line
    assert not (folder / "imported").exists()
    if verb == "compile":
        forget(folder)
        assert cli.main([verb, "m.yaml", *words, "--trust"]) == 0
        assert (folder / "imported").exists()


def test_results_of_a_comparison_import_nothing(folder: Path) -> None:
    entry = {"task": {"model": "evil:factory", "strategy": "evil:factory"}, "point": {}, "key": "1"}
    (folder / "points.jsonl").write_text(json.dumps({"schema": SCHEMA, **entry}) + "\n")
    with pytest.raises(FileError, match="altered"), results(folder):
        pass
    assert "evil" not in sys.modules
