import json
from pathlib import Path

import pytest
from refusals import refused

from compiler.program.program import Program
from lpu import api
from lpu.cli import app as cli


@pytest.fixture
def folder(pair_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    api.save_program(pair_program, "p")
    return "p"


def test_show_prints_rows_and_says_how_many_it_left_out(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["show", folder, "--chip", "0", "--unit", "plane 0", "--limit", "2"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["layers.0"] * 2 + ["kernel"] * 2
    assert err == "note: 2 of 13 rows; --limit shows more.\n"


def test_rows_in_json_are_records_of_their_operands(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", folder, "--op", "WB", "--call", "head", "--chip", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["total"], found["context"]) == ("lpu-show/1", 1, 80)
    (row,) = found["rows"]
    assert (row["op"], row["chip"], row["n"], row["unit"]) == ("WB", 1, 1, "drain 0")
    assert row["writes"][0]["holds"] == "f32"
    assert [(one["column"], one["holds"]) for one in row["reads"]] == [
        ("src", "stat"),
        ("src2", "scale"),
        ("src3", "accumulator"),
    ]
    assert found["kernels"][str(row["kernel"])].startswith("wb  wide")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--chip", "9"], "show: --chip 9: pair has 2 chips"),
        (["--op", "NORN"], "Did you mean NORM?"),
        (["--call", "9"], "no call from angles to head has this name"),
        (["--cycles", "9"], "'9' is no range of cycles. Give two numbers, as in 100-250"),
        (["--cycles", "9-8"], "'9-8' begins after it ends. Give 8-9"),
        (["--limit", "0"], "--limit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_filter_is_one_line_and_exit_2(
    folder: str, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert text in refused(capsys, 2, "show", folder, *words)
