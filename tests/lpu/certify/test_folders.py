"""Small folders, one of each kind of family, compiled, checked, proved and certified whole."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from compiler.program.instructions.vector import GluKernel
from compiler.program.store import sealed
from lpu import api
from lpu.certify.options import CertifyOptions
from lpu.cli import app as cli

DATA = Path(__file__).parents[2] / "models/data"
FOLDERS = sorted(str(one.parent.relative_to(DATA)) for one in DATA.glob("**/config.json"))
SOME = ("families/gemma3", "families/olmo2", "latent/v3-dense", "variants/falcon-h1", "variants/mixtral")
SCORED = {
    "variants/glm4-moe": 5,
    "variants/minimax-m2": 1,
    "variants/granite-moe": 5,
    "latent/v2-lite": 5,
    "latent/glm4-lite": 1,
    "variants/gemma4": 5,
    "variants/gemma4-apart": 1,
    "variants/gemma4-experts": 1,
    "variants/llama4": 5,
    "variants/llama4-interleaved": 1,
}
CASES = [(name, 1) for name in SOME] + [("variants/mixtral", 2), *SCORED.items()]


def test_there_are_folders_of_every_kind() -> None:
    kinds = {Path(name).parts[0] for name in FOLDERS}
    assert {"families", "latent", "variants"} <= kinds
    assert {*SOME, *SCORED} <= set(FOLDERS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), CASES)
def test_a_folder_is_proved_and_its_program_has_the_bits_of_the_model(name: str, batch: int) -> None:
    made = api.compile(DATA / name, rack="quad", tp=2, context=64, batch=batch)
    how = CertifyOptions(plain=False)
    found = api.certify(DATA / name, program=made.program, tokens=4, context=64, batch=batch, how=how)
    assert found.ok, str(found)
    assert found.proved, found.proof


@pytest.mark.slow
def test_a_saved_pair_is_certified_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = api.compile("llama-tiny", rack="pair", tp=2, context=24, prefill=4)
    assert made.prefill is not None
    words = ["certify", "--json", "--no-plain", "--tokens", "2"]
    api.save_program(made.program, tmp_path / "p", made.prefill)
    assert cli.main([*words, str(tmp_path / "p")]) == 0
    body = json.loads(capsys.readouterr().out)
    assert {one["name"]: one["equal"] for one in body["comparisons"]}["prefill in chunks of 4"] is True

    kernels = [
        replace(one, activation="gelu") if isinstance(one, GluKernel) else one
        for one in made.prefill.manifest.kernels
    ]
    other = replace(made.prefill, manifest=replace(made.prefill.manifest, kernels=tuple(kernels)))
    api.save_program(made.program, tmp_path / "q", sealed(other))
    assert cli.main([*words, str(tmp_path / "q")]) == 1
    out, err = capsys.readouterr()
    found = {one["name"]: one["equal"] for one in json.loads(out)["comparisons"]}
    assert "prefill: logits line 0: glu(" in err
    assert [name for name, equal in found.items() if equal is False] == ["prefill in chunks of 4"]
