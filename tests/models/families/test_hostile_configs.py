"""Configs of experts, latents and states with a value that no model has: refused in a line, or read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.sources.error import WeightError
from models.sources.huggingface.config import read_config

DATA = Path(__file__).parents[1] / "data"
FOLDERS = ("mixtral", "qwen3-moe", "mamba", "falcon-h1", "v3-experts", "granite4-dense")
VALUES = (None, True, "x", -1, 0, 1.5, 1e308, float("nan"), 2**63, 10**400, [], [0], {"a": 0})
REFUSED: dict[str, tuple[str, str, Any, str]] = {
    "more chosen than there are": ("mixtral", "num_experts_per_tok", 9, "there are 4 experts"),
    "none chosen": ("qwen3-moe", "num_experts_per_tok", 0, "a whole number of at least 1"),
    "experts below 0": ("mixtral", "num_local_experts", -4, "a whole number of at least 1"),
    "experts in words": ("qwen3-moe", "num_local_experts", "six", "a whole number of at least 1"),
    "a list of experts": ("mixtral", "num_local_experts", [4], "a whole number of at least 1"),
    "two numbers of experts": ("qwen3-moe", "num_experts", 7, "num_local_experts is another number"),
    "more experts than any model has": ("mixtral", "num_local_experts", 1025, "the most is 1024"),
    "an expert of no width": ("qwen3-moe", "moe_intermediate_size", 0, "a whole number of at least 1"),
    "groups that do not divide": ("v3-experts", "n_group", 3, "groups must be equal"),
    "a flag in words": ("v3-experts", "norm_topk_prob", "false", "it is true or false"),
    "a latent of no lanes": ("v3-experts", "kv_lora_rank", 0, "a whole number of at least 1"),
    "NaN as a factor": ("v3-experts", "routed_scaling_factor", float("nan"), "a finite number of f32"),
    "an expert wider than any": ("v3-experts", "moe_intermediate_size", 2**62, "the most is 16777216"),
    "a latent query wider than any": ("v3-experts", "q_lora_rank", 2**40, "the most is 16777216"),
    "no latent": ("v3-experts", "kv_lora_rank", None, "kv_lora_rank"),
    "a rank beyond 64 bits": ("mamba", "time_step_rank", 2**64, "the most is 2^64 - 1"),
    "a wider rank than any": ("mamba", "time_step_rank", 2**30, "the most is 16777216"),
    "states in words": ("mamba", "state_size", "16", "a whole number of at least 1"),
    "a factor beyond f32": ("falcon-h1", "key_multiplier", 1e300, "a finite number of f32"),
    "a factor of 401 digits": ("falcon-h1", "lm_head_multiplier", 10**400, "a finite number of f32"),
    "no heads of states": ("falcon-h1", "mamba_n_heads", 0, "a whole number of at least 1"),
    "logits divided by 0": ("granite4-dense", "logits_scaling", 0, "it must be above 0"),
}


def config_of(name: str) -> dict[str, Any]:
    (path,) = (path for room in ("variants", "latent") for path in DATA.glob(f"{room}/{name}/config.json"))
    return json.loads(path.read_text())


def changed(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The object with one key, at any depth, at each of VALUES or gone."""
    for key, part in value.items():
        yield from (value | {key: odd} for odd in VALUES)
        yield {name: one for name, one in value.items() if name != key}
        if isinstance(part, dict):
            yield from (value | {key: inside} for inside in changed(part))


@pytest.mark.parametrize("case", REFUSED)
def test_a_value_that_no_model_has_is_refused_by_name(case: str, tmp_path: Path) -> None:
    name, key, value, why = REFUSED[case]
    (tmp_path / "config.json").write_text(json.dumps(config_of(name) | {key: value}))
    with pytest.raises((WeightError, ValueError)) as found:
        read_config(tmp_path)
    assert why in str(found.value)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize("name", FOLDERS)
def test_every_key_at_every_odd_value_is_one_line_or_a_model(name: str, tmp_path: Path) -> None:
    path, refused, lines = tmp_path / "config.json", 0, list[str]()
    for config in changed(config_of(name)):
        path.write_text(json.dumps(config))
        try:
            read_config(tmp_path)
        except WeightError as error:
            lines += str(error).removeprefix(str(path)).splitlines()
            refused += 1
    assert len(lines) == refused > 50
    assert max(map(len, lines)) < 300
