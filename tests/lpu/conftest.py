"""Small programs that several tests look at, compiled once; the command line prints no progress."""

import pytest
from programs import dealt_program, pair_program, piped_program

__all__ = ["dealt_program", "pair_program", "piped_program"]


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No progress lines, which a verb prints on a slow machine."""
    monkeypatch.setattr("lpu.cli.terminal.SILENCE_SECONDS", 1e9)
