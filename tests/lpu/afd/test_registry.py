"""Modes are an open registry: one file adds one, seen by `lpu afd` from its help to its report."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import pytest
from refusals import refused

from lpu.afd.modes.pd import Pd
from lpu.afd.registry import MODES, register
from lpu.cli import app as cli
from lpu.cli.verb import options_of

HERE = str(Path(__file__).parents[1])
TINY = ["llama-tiny", "--rack", "pair", "--tp", "1", "--gpus", "1"]
SHORT = ["--prompt-tokens", "3", "--new-tokens", "2"]


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode of tests/lpu/whole_request.py beside the others, for the time of a test."""
    found = import_module("whole_request").Whole
    MODES.pop("whole", None)  # if the import was the first
    monkeypatch.setitem(MODES, "whole", found)


def test_a_mode_of_a_module_that_the_command_line_names_is_in_the_help_with_its_options() -> None:
    help_of = [sys.executable, "-m", "lpu", "--extend", "whole_request", "afd", "--help"]
    path = os.pathsep.join((HERE, os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        help_of, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    out = " ".join(done.stdout.split())
    assert "--mode pd|afd|draft|whole" in out
    assert "--patience N whole: steps before the first one. [default: 5; x>=0]" in out


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_a_registered_mode_is_timed_and_run_as_the_others_are(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["afd", *TINY, *SHORT, "--mode", "whole", "--patience", "2", "--run"]
    assert cli.main([*words, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["mode"], body["bits"]) == ("whole", "equal")
    assert body["turns"][0]["ttft_seconds"] == pytest.approx(5 * body["turns"][0]["tpot_seconds"])
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "a step       step" in out
    assert "patience  2 steps (assumed)" in out


@pytest.mark.usefixtures("whole")
def test_its_options_are_refused_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, 2, "afd", *TINY, "--patience", "3")
    assert "--patience: means nothing in mode pd. Use --mode whole." in line
    line = refused(capsys, 2, "afd", *TINY, "--mode", "whole", "--kv-policy", "recompute")
    assert "--kv-policy: means nothing in mode whole. Use --mode pd." in line


def test_a_name_is_taken_once() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Again(Pd):
        name: ClassVar[str] = "pd"

    assert register(Pd) is Pd
    with pytest.raises(ValueError, match=r"mode pd: Pd has this name already"):
        register(Again)
    assert MODES["pd"] is Pd


def test_every_mode_says_what_it_is() -> None:
    for name, mode in MODES.items():
        assert mode.name == name
        assert mode.layer.startswith("a ")
        assert mode.__doc__
        assert all(field.option.help for field in options_of(mode))


def test_the_options_of_modes_are_there_without_numpy() -> None:
    code = "import sys, lpu.afd.registry; assert not {'jax', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
