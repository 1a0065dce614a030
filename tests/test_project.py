import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import house
import pytest
from passes import SHAPED, is_shaped

ROOT = Path(__file__).parents[1]
FOLDERS = house.PACKAGES


@pytest.fixture(scope="module")
def as_it_is() -> house.House:
    return house.read()


@pytest.mark.parametrize("name", house.COUNTS)
def test_no_count_of_the_house_is_above_its_limit(as_it_is: house.House, name: str) -> None:
    count, limit = house.COUNTS[name]
    places = count(as_it_is)
    assert len(places) <= limit.at_most, "\n".join(places)
    assert limit.goal <= limit.at_most


def test_names_that_two_files_share_are_argued_and_few(as_it_is: house.House) -> None:
    assert len(house.ALIKE) <= house.TWICE
    assert house.ALIKE.keys() <= {line.split(":")[0] for line in house.names_twice(as_it_is)}


def made_up(name: str, text: str) -> house.House:
    tree, floors = ast.parse(text), (("lpu.cli",), ("lpu.run",), ("compiler",))
    return house.House((house.Module(name, f"{name.replace('.', '/')}.py", text.count("\n"), tree),), floors)


def test_the_counts_see_what_they_are_to_see() -> None:
    reads = (
        'def f(p):\n m = p.manifest\n for each in m["kernels"]:\n  x = each["rows"]\n'
        ' return m.get("chip", {})["planes"], p.q["a"]\n'
    )
    assert [line.split(":")[1] for line in house.manifest_reads(made_up("lpu.run.a", reads))] == list("3455")
    ops = 'ADD = ("add", "embed")\nif n.op == "add" or n.op in ADD or n.op is Op.ADD: pass\n'
    assert len(house.ops_as_strings(made_up("lpu.run.a", ops))) == 2
    assert house.ops_as_strings(made_up("compiler.lower.ops.add", ops)) == []
    wide = "@app.command()\ndef run(a, b, c, d, e, *, f, g, h, i): pass\n"
    assert len(house.wide_verbs(made_up("lpu.cli.run", wide))) == 1
    text = "def f():\n" + " x = 1\n" * house.FUNCTION_LINES
    assert house.long_functions(made_up("lpu.run.a", text)) == ["lpu/run/a.py:1 f 71"]
    assert house.long_functions(made_up("lpu.run.a", text.removesuffix(" x = 1\n"))) == []
    low = house.House(
        (
            *made_up("lpu.run.a", "from lpu.cli import app").modules,
            *made_up("lpu.cli.app", "import lpu.run.a").modules,
        ),
        (("lpu.cli",), ("lpu.run",)),
    )
    assert house.upward_imports(low) == ["lpu.run.a -> lpu.cli.app"]
    assert house.circles(low) == ["lpu.cli.app <-> lpu.run.a"]


def test_pyright_finds_a_misspelt_field_of_a_manifest(tmp_path: Path) -> None:
    """A manifest is a record: a key that a dict would miss at run time is a type error."""
    path = tmp_path / "reader.py"
    path.write_text(
        "from compiler.program.manifest import Manifest\n\n\n"
        "def read(manifest: Manifest) -> object:\n    return manifest.contexts, manifest.contextz\n"
    )
    settings = {"include": [str(path)], "extraPaths": [str(ROOT)], "typeCheckingMode": "basic"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "-p", str(tmp_path)], capture_output=True, text=True, check=False)
    (found,) = json.loads(done.stdout)["generalDiagnostics"]
    assert found["rule"] == "reportAttributeAccessIssue"
    assert '"contextz"' in found["message"]


def test_what_checks_links_and_runs_a_program_is_under_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = (c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "forbidden")
    sources = [contract["source_modules"] for contract in contracts]
    assert sources == [["lpu.check", "lpu.link", "lpu.prove", "lpu.run"], ["lpu.prove"]]


def test_no_file_of_tests_or_benchmarks_is_longer_than_a_file_of_the_house() -> None:
    for folder in ("tests", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= house.FILE_LINES, path


def test_help_needs_no_jax() -> None:
    heavy = {"jax", "flax", "numpy", "pydantic", "uvicorn", "starlette", "prometheus_client"}
    code = f"import sys, lpu.cli.app; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", FOLDERS)
def test_a_package_says_that_it_is_typed_and_what_it_is_for(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or ""
    assert len(text.split()) > 5


def test_every_test_is_in_a_pass_of_ci_and_passes_are_of_folders_that_exist() -> None:
    run = (ROOT / ".ci/run").read_text()
    for folder in SHAPED:
        assert any((ROOT / folder).rglob("test_*.py")), folder
    assert '-m "not shaped"' in run
    assert f'-m shaped "$shapes" \\\n    {" ".join(SHAPED)} 2>&1' in run
    assert is_shaped(ROOT / SHAPED[0] / "place/test_place.py", slow=False)
    assert not is_shaped(ROOT / SHAPED[0] / "place/test_place.py", slow=True)
    assert not is_shaped(Path(__file__), slow=False)


def test_every_catalog_file_lies_in_a_package() -> None:
    for path in ROOT.glob("*/catalog/**/*.yaml"):
        assert path.relative_to(ROOT).parts[0] in FOLDERS
