"""Numbers of models that make no model are refused by the model's name, the number's, and what it may be."""

from dataclasses import replace
from typing import Any

import pytest

from models.catalog import catalog

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("moe-tiny", {"chosen": 0}, "moe-tiny: chosen is 0, it is 1 to experts"),
    ("moe-tiny", {"experts": 1025}, "moe-tiny: experts is 1025, the most is 1024."),
    ("moe-tiny", {"biased": frozenset({"down"})}, "moe-tiny: biased names 'down'"),
    ("mla-tiny", {"kv_lora": 0}, "mla-tiny: kv_lora is 0, the least is 1."),
    ("mla-tiny", {"rope": 15}, "mla-tiny: rope 15 is odd; RoPE turns pairs, 2 at a time."),
    ("mla-tiny", {"head_dim": 8}, "mla-tiny: head_dim is 8, nope"),
    ("mla-tiny", {"mscale": 0.0}, "mscale 0.0 must be above 0."),
    ("deepseek-tiny", {"dense": 99}, "deepseek-tiny: dense is 99, it is 0 to"),
    ("deepseek-tiny", {"expert_ffn": 0}, "deepseek-tiny: expert_ffn is 0, the least is 1."),
    ("deepseek-tiny", {"keep": 99}, "groups must be equal, of 2 experts at least"),
    ("falcon-h1-7b", {"pattern": ("PF",)}, "falcon-h1-7b: pattern names 1 layers, there are"),
    ("falcon-h1-7b", {"channels": 0}, "falcon-h1-7b: channels is 0, the least is 1."),
    ("falcon-h1-7b", {"ssm_heads": 7}, "ssm_heads 7 do not divide"),
    ("falcon-h1-7b", {"step_low": -1.0}, "must be 0 <= low <= high."),
    ("falcon-h1-7b", {"experts": 4}, "0 layers of the pattern have experts, experts is 4."),
    ("jamba-1.5-mini", {"expert_ffn": 0}, "jamba-1.5-mini: expert_ffn is 0, the least is 1."),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_numbers_that_make_no_model_are_refused_by_name(
    name: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="^" + name) as error:
        replace(catalog(name), **change)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
