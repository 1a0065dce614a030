"""Llama 4 (text): folders of transformers, numbers of the published models, what is refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from models.configs.llama4 import Llama4Config
from models.contract.experts.slots import WEIGHED, weighted_glu
from models.published.count import parameters
from models.published.entries import published
from models.published.state import config_of
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config

VARIANTS = Path(__file__).parents[1] / "data/variants"
SCOUT, MAVERICK = (VARIANTS / name for name in ("llama4", "llama4-interleaved"))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama-4-scout", ("span", "span", "span", "nope")),
        ("llama-4-maverick", ("span dense", "span", "span dense", "nope")),
    ],
)
def test_a_published_model_has_its_kinds_of_layers_and_parameters(name: str, kinds: tuple[str, ...]) -> None:
    config = config_of(published()[name])
    assert isinstance(config, Llama4Config)
    assert (config.parameters(), config.active_parameters()) == parameters(published()[name].config)
    assert tuple(map(config.kind_of, range(4, 8))) == kinds
    assert (config.warmth(8190), config.warmth(8191)) == (1.0, 1 + 0.1 * np.log(2))
    assert Llama4Config.of_fields(config.to_fields()) == config


def test_what_an_expert_takes_is_weighed_before_its_activation() -> None:
    gate, up = (jnp.asarray([[1.5, -2.0]], jnp.float32) * factor for factor in (1, 3))
    half, whole = jnp.full((1, 1), 0.5, jnp.float32), jnp.ones((1, 1), jnp.float32)
    found = weighted_glu(gate, up, half, WEIGHED)
    assert np.array_equal(found, weighted_glu(gate / 2, up / 2, whole, "silu"))
    assert not np.array_equal(found, weighted_glu(gate, up, half, "silu"))
    assert np.array_equal(weighted_glu(gate, up, 0 * half, WEIGHED), np.zeros((1, 2), np.float16))


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"attention_bias": True}, "attention_bias is True"),
    ({"num_experts_per_tok": 5}, "num_experts_per_tok is 5: there are 4 experts"),
    ({"attention_chunk_size": 0}, "attention_chunk_size is 0"),
    ({"no_rope_layers": [1]}, "names 1 layers, num_hidden_layers is 3"),
    ({"layer_types": ["full_attention"] * 3}, "layers see runs where they have RoPE"),
    ({"moe_layers": [1]}, "moe_layers is .1.: only experts in every layer of a step of 1"),
    ({"interleave_moe_layer_step": 4}, "step is 4, so no one of 3 layers has experts"),
    ({"hidden_act": "gelu"}, "pre and silu are"),
)


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_a_config_that_means_something_else_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    keys = json.loads((SCOUT / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(keys))
    with pytest.raises(WeightError, match=words) as refused:
        read_config(tmp_path)
    assert "\n" not in str(refused.value)


def test_numbers_that_no_such_model_has_are_refused() -> None:
    with pytest.raises(ValueError, match="floor is 0"):
        replace(read_config(SCOUT), floor=0)
    with pytest.raises(ValueError, match="sinks is True"):
        replace(read_config(SCOUT), sinks=True)
