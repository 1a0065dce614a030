import json
from typing import Any

import pytest

from lpu.cli import app as cli
from models.published.entries import published


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert cli.main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_known_model_is_listed_with_its_state(capsys: pytest.CaptureFixture[str]) -> None:
    body = answer(capsys, "models")
    assert body["schema"] == "lpu-models/2"
    rows = {row["name"]: row for row in body["models"]}
    assert set(published()) < set(rows)
    assert {row["state"] for row in rows.values()} == {"compiles", "refused"}
    assert rows["llama-3.1-70b"]["active_parameters"] == 69_503_041_536
    assert rows["qwen2.5-7b"] | {"source": ""} == {
        "name": "qwen2.5-7b",
        "row": "qwen2.5",
        "model_type": "qwen2",
        "layers": 28,
        "hidden": 3584,
        "heads": 28,
        "kv_heads": 4,
        "head_dim": None,
        "ffn": 18944,
        "vocab": 152064,
        "max_context": 32768,
        "parameters": 7_615_616_512,
        "active_parameters": 7_070_622_720,
        "published_parameters": 7_616_000_000,
        "published_active_parameters": None,
        "state": "compiles",
        "missing": [],
        "why": "",
        "source": "",
    }
    refused = rows["deepseek-v4-pro"]
    assert refused["state"] == "refused"
    assert "hyper_connection" in refused["missing"]
    assert all(row["why"] for row in rows.values() if row["state"] == "refused")


def test_a_published_model_is_shown_number_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    body = answer(capsys, "models", "kimi-k2-thinking")
    numbers = {one["name"]: one["value"] for one in body["numbers"]}
    assert (numbers["n_routed_experts"], numbers["published_parameters"]) == (384, 1_040_000_000_000)
    assert body["parameters"] == 1_026_408_232_448
    assert cli.main(["models", "kimi-k2-thinking"]) == 0
    assert "weights: int4 in groups of 32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("compile", "kimi-k3"), 3, "model: kimi-k3 is known, and refused: the vocabulary lacks "),
        (("compile", "deepseek-v4-pro"), 3, "model: deepseek-v4-pro is known, and refused: "),
        (("run", "jamba2-mini"), 3, "jamba2-mini is known, and refused: not held here: config.json."),
        (("models", "phi-5"), 2, "Did you mean phi-4?"),
    ],
)
def test_what_cannot_be_compiled_is_one_line(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    assert cli.main(list(words)) == code
    out, err = capsys.readouterr()
    assert said in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_published_model_compiles_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    body = answer(capsys, "compile", "qwen2.5-0.5b", "--rack", "lpx-tray", "--tp", "2", "--context", "64")
    assert (body["model"]["name"], body["checked"]) == ("qwen2.5-0.5b", True)
