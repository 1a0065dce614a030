"""A verb that refuses: one line, the exit code, and nothing written."""

from collections.abc import Generator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lpu.cli import app as cli

ROOT = Path(__file__).parents[2]


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    """The one line of an error; nothing on stdout, nothing written."""
    with _elsewhere():
        before = sorted(Path().rglob("*"))
        assert cli.main(list(words)) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("error: ")
        assert sorted(Path().rglob("*")) == before
    return err


@contextmanager
def _elsewhere() -> Generator[None]:
    """Not in the project's folder: Python, XLA and other workers write there meanwhile."""
    if not Path().samefile(ROOT):
        yield
        return
    with TemporaryDirectory() as folder, chdir(folder):
        yield
