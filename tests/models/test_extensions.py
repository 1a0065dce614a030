import subprocess
import sys
from pathlib import Path

import pytest

from lpu.cli import app
from models import extensions
from models.contract import ops
from models.extensions import ExtensionError, extend, load_extensions

COUNTED = """
from pathlib import Path
with Path(__file__).with_suffix(".log").open("a") as log:
    log.write("imported ")
"""
OP = """
from models.contract import ops
from models.contract.op import define
from models.contract.vocabulary.add import ADD
ops.register(define(name="{name}", shape=ADD.shape, flops=ADD.flops, contract=ADD.contract, plain=ADD.plain))
"""
LIST_OPS = (
    "from models.extensions import load_extensions; load_extensions(); load_extensions();"
    "from models.contract.ops import OPS; print(*OPS)"
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(extensions.VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(ops, "OPS", {**ops.OPS})
    return tmp_path


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def installed(folder: Path, name: str, module: str) -> None:
    """A package's metadata with one entry point, as pip leaves it beside the module."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{extensions.GROUP}]\n{name} = {module}\n")


def test_a_named_module_is_imported_once_and_a_module_that_nobody_named_never(own_folder: Path) -> None:
    for name in ("counted_named", "counted_other"):
        (own_folder / f"{name}.py").write_text(COUNTED)
    extend("counted_named")
    extend("counted_named")
    load_extensions()
    load_extensions()
    assert (own_folder / "counted_named.log").read_text() == "imported "
    assert not (own_folder / "counted_other.log").exists()


@pytest.mark.slow
def test_child_processes_import_what_the_command_line_named(own_folder: Path) -> None:
    (own_folder / "own_ops.py").write_text(OP.format(name="first"))
    assert app.main(["--extend", "own_ops", "racks"]) == 0
    assert "first" in python(LIST_OPS).stdout.split()


def test_installed_extensions_are_imported_in_order_of_name(own_folder: Path) -> None:
    for name in ("zeta", "alpha"):
        (own_folder / f"{name}_ops.py").write_text(OP.format(name=name))
        installed(own_folder, name, f"{name}_ops")
    assert python(LIST_OPS).stdout.split()[-2:] == ["alpha", "zeta"]


def test_two_ops_of_one_name_are_an_error_that_names_both(own_folder: Path) -> None:
    (own_folder / "second_glu.py").write_text(OP.format(name="glu"))
    extend("second_glu")
    with pytest.raises(ExtensionError, match="'glu', one of models"):
        load_extensions()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        (")", "SyntaxError"),
    ],
)
def test_a_broken_extension_is_one_line_and_exit_2(
    own_folder: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    (own_folder / f"broken_{reason}.py").write_text(text)
    assert app.main(["--extend", f"broken_{reason}", "racks"]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert f"extension broken_{reason}: importing it raised {reason}" in error
    assert "leave it out of --extend and LPU_EXTEND" in error


def test_a_broken_installed_extension_names_its_package(own_folder: Path) -> None:
    installed(own_folder, "halfdone", "halfdone_ops")
    error = python(LIST_OPS).stderr.strip().splitlines()[-1]
    assert "extension halfdone of halfdone (halfdone_ops): importing it raised ModuleNotFoundError" in error
    assert "Mend or uninstall halfdone." in error
