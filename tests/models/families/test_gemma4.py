"""Gemma 4 (text): folders of transformers, numbers of the published models, what is refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.configs.gemma4 import Gemma4Config
from models.published.count import parameters
from models.published.entries import published
from models.published.state import config_of
from models.rope import rope_angles
from models.rope_scaling import ProportionalScaling
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config
from models.sources.huggingface.folder import open_folder

VARIANTS = Path(__file__).parents[1] / "data/variants"
DENSE, APART, EXPERTS = (VARIANTS / name for name in ("gemma4", "gemma4-apart", "gemma4-experts"))


@pytest.mark.parametrize("name", ["gemma-4-31b", "gemma-4-26b-a4b"])
def test_a_published_model_has_two_geometries_and_its_parameters(name: str) -> None:
    config = config_of(published()[name])
    assert isinstance(config, Gemma4Config)
    assert (config.parameters(), config.active_parameters()) == parameters(published()[name].config)
    heads = config.heads // 2
    assert (config.cached_at(0), config.cached_at(5)) == ((heads, 256, 256), (heads // 4, 512, 512))
    assert (config.kind_of(4), config.kind_of(5), config.kind_of(config.layers - 1)) == (
        "window",
        "full",
        "full",
    )
    assert Gemma4Config.of_fields(config.to_fields()) == config


def test_the_table_turns_the_first_lanes_of_wide_heads_at_the_speed_of_whole_ones() -> None:
    whole, part = (
        rope_angles(9, lanes, 1e6, ProportionalScaling(head_dim=32, turned=turned, factor=1.0))
        for lanes, turned in ((32, 32), (16, 8))
    )
    assert np.array_equal(part[:, :, :4], whole[:, :, :4])
    assert (part[:, 0, 4:] == 1 << 15).all()
    assert (part[:, 1, 4:] == 0).all()


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"hidden_size_per_layer_input": 8}, "hidden_size_per_layer_input is 8: inputs of each layer"),
    ({"num_kv_shared_layers": 1}, "num_kv_shared_layers is 1"),
    ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention is 'all'"),
    ({"attention_bias": True}, "attention_bias is True"),
    ({"top_k_experts": 7}, "top_k_experts is 7: there are 6 experts"),
    ({"num_global_key_value_heads": 3}, "heads 4 is no multiple of global_kv_heads 3"),
    ({"sliding_window": 0}, "sliding_window is 0"),
    ({"layer_types": ["full_attention"]}, "names 1 layers, num_hidden_layers is 2"),
    (
        {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
        "rope_type is 'yarn': only default, prop",
    ),
    (
        {"rope_parameters": {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.01}}},
        "turns 0 of 32 lanes",
    ),
)


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_a_config_that_means_something_else_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    keys = json.loads((EXPERTS / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(keys))
    with pytest.raises(WeightError, match=words) as refused:
        read_config(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"global_turned": 34}, "global_turned 34 must be even, 2 to global_head_dim, an even 32"),
        ({"kinds": ()}, "kinds says full or window of each of the 2 layers"),
        ({"chosen": 9}, "chosen is 9, experts 6"),
        ({"expert_ffn": 0}, "expert_ffn is 0"),
        ({"sinks": True}, "sinks is True"),
        ({"ffn_up": "fp16"}, "experts beside a dense FFN take 3 vectors"),
    ],
)
def test_numbers_that_no_such_model_has_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(read_config(EXPERTS), **changes)


@pytest.mark.parametrize("gone", ["layer_scalar", "router.per_expert_scale", "router.scale"])
def test_a_factor_that_is_missing_is_named(gone: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((EXPERTS / "config.json").read_text())
    held = load_file(EXPERTS / "model.safetensors")
    save_file(
        {name: one for name, one in held.items() if not name.endswith(gone)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(WeightError, match=gone.replace(".", r"\.")):
        open_folder(tmp_path)


def test_the_factor_of_an_expert_is_in_its_down_projection() -> None:
    weights, held = open_folder(EXPERTS), load_file(EXPERTS / "model.safetensors")
    down, factor = (
        held[f"model.layers.1.{name}"].astype(np.float32)
        for name in ("experts.down_proj", "router.per_expert_scale")
    )
    found = weights.plain("layers.1.ffn.experts.down.codes")
    assert np.allclose(found, down.transpose(0, 2, 1) * factor[:, None, None])
