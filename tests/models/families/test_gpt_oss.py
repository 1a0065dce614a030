"""Gpt-oss: folders of transformers in bf16 and MXFP4, counts of its parameters, what is refused by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.catalog import catalog
from models.configs.gpt_oss import GptOssConfig
from models.contract.scales.mxfp4 import from_mxfp4
from models.kv import empty_cache
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config
from models.sources.huggingface.folder import open_folder
from models.sources.seeded import Seeded, seeded
from models.sources.weights import ReadRows, weight_shapes
from models.step import family_step
from models.streamed import StreamedReference

VARIANTS = Path(__file__).parents[1] / "data/variants"
BF16, PACKED = VARIANTS / "gpt-oss", VARIANTS / "gpt-oss-mxfp4"
EXPERTS = "model.layers.0.mlp.experts"


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gpt-oss-120b"])
def test_parameters_are_as_many_as_published(name: str) -> None:
    """Of the active ones the authors leave out the embedding: arXiv 2508.10925, table 1."""
    config = catalog(name)
    assert isinstance(config, GptOssConfig)
    assert config.published_parameters is not None
    assert config.published_active is not None
    assert config.parameters() == pytest.approx(config.published_parameters, rel=1e-3)
    active = config.active_parameters() - config.vocab * config.hidden
    assert active == pytest.approx(config.published_active, rel=2e-3)


def test_mxfp4_is_exact_and_gate_and_up_are_put_apart() -> None:
    weights = open_folder(PACKED)
    for name in ("gate_up", "down"):
        path = f"layers.1.ffn.{name}"
        codes, exponent = weights[f"{path}.codes"], weights[f"{path}.exponent"]
        assert weights.changed[f"{path}.codes"] == (0, codes.size)
        assert weights.relative_errors[f"{path}.codes"] == 0
        held = load_file(PACKED / "model.safetensors")
        theirs = f"model.layers.1.mlp.experts.{name}_proj"
        blocks, scales = held[f"{theirs}_blocks"], held[f"{theirs}_scales"]
        nibbles = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:2], -1)
        k, n = codes.shape[1:]
        below = nibbles.transpose(0, 2, 1).reshape(-1, n), scales.transpose(0, 2, 1).reshape(-1, n)
        made = jax.jit(from_mxfp4)(*map(jnp.asarray, below))  # the contract's rule, of all experts at once
        order = np.r_[0:n:2, 1:n:2] if name == "gate_up" else np.arange(n)
        assert np.array_equal(np.asarray(made.codes).reshape(-1, k, n)[..., order], codes)
        assert np.array_equal(np.asarray(made.exponent)[order], exponent)


def copied(folder: Path, into: Path, tensors: dict[str, Any]) -> Path:
    """The folder with other tensors; None: one less."""
    shutil.copy(folder / "config.json", into)
    held = load_file(folder / "model.safetensors") | tensors
    save_file({name: one for name, one in held.items() if one is not None}, into / "model.safetensors")
    return into


def test_mxfp4_weights_that_change_are_counted(tmp_path: Path) -> None:
    scales = load_file(PACKED / "model.safetensors")[f"{EXPERTS}.down_proj_scales"].copy()
    scales[0] -= 20
    weights = open_folder(copied(PACKED, tmp_path, {f"{EXPERTS}.down_proj_scales": scales}))
    codes = weights["layers.0.ffn.down.codes"]
    changed = weights.changed["layers.0.ffn.down.codes"]
    assert 0 < changed.weights <= codes[0].size
    assert (codes[0] & 0x7F <= 6).all()  # steps of 2^-9 of an e4m3 code, the least there is
    assert 0 < weights.relative_errors["layers.0.ffn.down.codes"] < 1e-4


SPOILED: dict[str, tuple[Path, dict[str, Any], str]] = {
    "scales of another shape": (
        PACKED,
        {f"{EXPERTS}.gate_up_proj_scales": np.full((4, 64, 3), 120, np.uint8)},
        r"gate_up_proj_scales.* has shape \[4, 64, 3\]: codes \[4, 64, 2, 16\] take one scale per 32",
    ),
    "no scales": (PACKED, {f"{EXPERTS}.down_proj_scales": None}, r"missing .*down_proj"),
    "a scale that is no number": (
        PACKED,
        {f"{EXPERTS}.down_proj_scales": np.full((4, 64, 1), 255, np.uint8)},
        r"down_proj_scales.*256 of 256 scales are byte 255|scales are byte 255",
    ),
    "one expert less": (
        BF16,
        {f"{EXPERTS}.down_proj_bias": np.zeros((3, 64), np.float32)},
        r"down_proj_bias.* has shape \[3, 64\], config.json makes it \[4, 64\]",
    ),
    "no bias of the router": (BF16, {"model.layers.0.mlp.router.bias": None}, r"missing .*router\.bias"),
    "no sinks": (BF16, {"model.layers.1.self_attn.sinks": None}, r"missing .*sinks"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_tensors_that_do_not_fit_are_named(case: str, tmp_path: Path) -> None:
    folder, tensors, words = SPOILED[case]
    with pytest.raises(WeightError, match=words):
        _ = open_folder(copied(folder, tmp_path, tensors))["layers.0.ffn.down.codes"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok is 5: there are 4 experts"),
        ({"swiglu_limit": 6.0}, r"swiglu_limit is 6.0: only 7.0 is supported"),
        ({"swiglu_alpha": 1.0}, r"swiglu_alpha is 1.0: only 1.702 is supported"),
        ({"layer_types": ["full_attention"]}, "names 1 layers, num_hidden_layers is 2"),
        ({"sliding_window": 0}, "sliding_window is 0"),
        ({"experts_per_token": 3}, "experts_per_token is 3: num_experts_per_tok is 2"),
        ({"num_experts": 8}, "num_experts is 8: num_local_experts is 4"),
        ({"hidden_act": "gelu"}, "the gate of gpt-oss is silu's"),
    ],
)
def test_a_config_that_means_something_else_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    keys = json.loads((BF16 / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(keys))
    with pytest.raises(WeightError, match=words):
        read_config(tmp_path)


def test_a_config_that_says_nothing_is_that_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_oss"}')
    config, wanted = read_config(tmp_path), catalog("gpt-oss-120b")
    assert replace(config, name="", source="") == replace(
        wanted, name="", source="", published_parameters=None, published_active=None
    )


def test_numbers_that_no_gpt_oss_has_are_refused() -> None:
    tiny = catalog("gpt-oss-tiny")
    with pytest.raises(ValueError, match="renormalise is false"):
        replace(tiny, renormalise=False)
    with pytest.raises(ValueError, match="the gate of gpt-oss is silu's"):
        replace(tiny, activation="gelu")


class Given:
    """Weights and constants by path, read by rows where that can be."""

    def __init__(self, held: Seeded, constants: dict[str, Any]) -> None:
        self.held, self.constants = held, constants

    def __getitem__(self, name: str) -> np.ndarray:
        return self.constants[name] if name in self.constants else self.held[name]

    def row_reader(self, name: str) -> ReadRows | None:
        return self.held.row_reader(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moe-tiny", "gpt-oss-tiny"])
def test_layer_by_layer_the_bits_are_the_same(name: str) -> None:
    config = catalog(name)
    step = family_step(config, batch=2, context=8)
    held, tokens, at = seeded(weight_shapes(step), 0), np.array([3, 5], np.int32), np.zeros(2, np.int32)
    given = Given(held, dict(step.constants))
    logits, _ = StreamedReference(config, given, batch=2, context=8, kv="fp16").step(tokens, at)
    params = {path: jnp.asarray(given[path]) for path in step.params}
    whole = jax.jit(step.fn)(params, jnp.asarray(tokens), jnp.asarray(at), empty_cache(step.cache))[0]
    assert np.array_equal(np.asarray(whole), logits)
