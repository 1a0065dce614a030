"""Started from a folder with a `models/` of its own: commands run, an import is refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("lpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError('another project')\n")
    return tmp_path


def started(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run in that folder, which is also first on the path of modules."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed beside this Python")
def test_the_command_runs_from_any_folder(folder: Path) -> None:
    done = started(folder, str(SCRIPT), "models")
    assert (done.returncode, done.stderr) == (0, "")
    assert "llama-tiny" in done.stdout


def test_the_module_runs_from_any_folder(folder: Path) -> None:
    done = started(folder, sys.executable, "-m", "lpu", "models")
    assert (done.returncode, done.stderr) == (0, "")
    assert "llama-tiny" in done.stdout


def test_an_import_beside_other_models_is_refused_in_one_line(folder: Path) -> None:
    done = started(folder, sys.executable, "-c", "import lpu.api")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"lpu: Python finds another project's 'models' ({folder.resolve()}, expected "
    )
    assert done.stderr.count("\n") == 1


def test_whoever_catches_it_has_an_import_error_and_other_errors_keep_their_traceback(folder: Path) -> None:
    code = "try:\n  import lpu\nexcept ImportError as error:\n  print(error)\nraise ValueError('another')"
    done = started(folder, sys.executable, "-c", code)
    assert done.stdout.startswith("lpu: Python finds another project's 'models'")
    assert "Traceback" in done.stderr
    assert "ValueError: another" in done.stderr
