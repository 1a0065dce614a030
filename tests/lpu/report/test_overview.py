"""A program on one screen of text."""

import json
from pathlib import Path

import pytest
from hostile_names import STEERING, program

from compiler.program.program import Program
from lpu import api
from lpu.cli import app as cli
from lpu.report.overview import overview


def test_the_map_has_a_mark_for_every_chip_and_the_gantt_a_line_for_every_group(
    piped_program: Program,
) -> None:
    found = overview(piped_program)
    assert found.stage == (0, 0, 1, 1)
    assert "[0011]" in found.map()
    first, second, legend = found.gantt().splitlines()
    assert first.startswith("0-1 |e")
    assert second.startswith("2-3 |  ")
    assert second.endswith("h|")
    kinds = [part.split()[1] for part in legend.split(";")[0].split(", ")]
    assert kinds == list(dict.fromkeys(kind for _, kind, _, _, _ in found.calls))
    busy = sum((one != " ") for line in (first, second) for one in line.split("|")[1])
    assert 64 <= busy <= 66


def test_show_without_a_choice_is_the_overview_and_with_one_the_rows(
    piped_program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "p")
    api.save_program(piped_program, folder)
    assert cli.main(["show", folder]) == 0
    assert "[0011]" in capsys.readouterr().out
    assert cli.main(["show", folder, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["schema"], body["cycles"]) == ("lpu-overview/1", piped_program.manifest.cycles[80])
    assert cli.main(["show", folder, "--limit", "200", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "lpu-show/1"


def test_names_are_inert_and_lines_stay_on_the_screen() -> None:
    text = str(overview(program()))
    assert not STEERING & set(text)
    assert max(map(len, text.splitlines())) < 200
