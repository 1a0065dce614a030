"""Small folders, one of each kind of family, compiled, checked, proved and certified whole."""

from pathlib import Path

import pytest

from lpu import api
from lpu.certify.options import CertifyOptions

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
