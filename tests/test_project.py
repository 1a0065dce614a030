import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXECUTES = (
    "check",
    "link",
    "run",
    "image",
    "stream",
    "ingest",
)  # first words of the files that execute or check a program
FOLDERS = ("lpu", "compiler", "fabric", "models")


def test_all_that_executes_or_checks_is_under_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = (c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "forbidden")
    files = sorted(path.stem for path in (ROOT / "lpu").glob("*.py"))
    assert contract["source_modules"] == [f"lpu.{n}" for n in files if n.split("_")[0] in EXECUTES]


def test_no_file_is_longer_than_500_lines() -> None:
    for folder in (*FOLDERS, "tests", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 500, path


def test_help_needs_no_jax() -> None:
    code = "import sys, lpu.cli.app; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_catalog_file_lies_in_a_package() -> None:
    for path in ROOT.glob("*/catalog/**/*.yaml"):
        assert path.relative_to(ROOT).parts[0] in FOLDERS


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/pipeline.md",
        "docs/numbers.md",
        "docs/bounds.md",
        "docs/placement.md",
    ],
)
def test_files_that_a_page_names_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    for word in text.replace("(", " ").replace(")", " ").replace("`", " ").split():
        path = word.rstrip(".,:;").split("#")[0]
        if path.startswith((*(f"{f}/" for f in FOLDERS), "docs/", "examples/", "benchmarks/", "tests/")):
            assert (ROOT / path).exists(), path
