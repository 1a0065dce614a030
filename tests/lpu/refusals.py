"""A verb that refuses: one line, the exit code, and nothing written."""

from pathlib import Path

import pytest

from lpu.cli import app as cli


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    """The one line of an error; nothing on stdout, nothing written."""
    before = sorted(Path().rglob("*"))
    assert cli.main(list(words)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert sorted(Path().rglob("*")) == before
    return err
