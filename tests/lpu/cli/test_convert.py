import json
from pathlib import Path

import pytest

from lpu.cli import app as cli

FOLDER = Path(__file__).parents[2] / "models" / "data" / "tiny-llama"
RUN = ["--rack", "pair", "--context", "16", "--prompt-ids", "1,2", "--tokens", "2", "--json"]


def body(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert cli.main(list(words)) == 0
    return json.loads(capsys.readouterr().out)


def test_converted_weights_come_back_from_orbax_with_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "weights"
    report = body(capsys, "convert", str(FOLDER), "-o", str(saved), "--json")
    assert report["schema"] == "lpu-convert/1"
    original = body(capsys, "run", str(FOLDER), *RUN)
    restored = body(capsys, "run", str(FOLDER), "--weights", f"orbax:{saved}", *RUN)
    assert original["logits_sha256"] == restored["logits_sha256"]


def test_an_existing_or_unwritable_folder_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", "llama-tiny", "-o", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert cli.main(["convert", "llama-tiny", "-o", str(blocked / "below")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1
