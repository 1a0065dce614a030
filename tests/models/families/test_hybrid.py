"""Configs of hybrid folders: what is not computed is refused by its key, on one line with both numbers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax.core import ShapedArray
from safetensors.numpy import load_file, save_file

from lpu.cli.app import main
from models.configs.hybrid import HybridConfig
from models.contract.ops import OPS
from models.families.hybrid.mixers import decay
from models.families.registry import config_of
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config
from models.sources.huggingface.folder import open_folder

FOLDERS = Path(__file__).parents[1] / "data/variants"
WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "heads": ("mamba2", {"num_heads": 5}, "num_heads is 5: 5 heads of 24 are not 96 channels"),
    "channels": ("falcon-h1", {"mamba_d_ssm": 65}, "mamba_d_ssm is 65: 4 heads of 16 are not 65 channels"),
    "groups": (
        "mamba2",
        {"n_groups": 3},
        "n_groups is 3: groups of B and C share 4 heads, which it does not",
    ),
    "taps": ("mamba2", {"conv_kernel": 1}, "conv_kernel is 1: a convolution that keeps inputs has 2 taps"),
    "bias": ("mamba2", {"use_bias": True}, "use_bias is True: such a bias is not supported"),
    "state": ("falcon-h1", {"mamba_ssm_cache_dtype": "bfloat16"}, "'bfloat16': states are kept in float32"),
    "limits": ("bamba", {"time_step_limit": [1.0, 0.5]}, "it is the least and the most of a time step"),
    "layers": ("bamba", {"attn_layer_indices": [2]}, "attn_layer_indices is [2]: it names layers, 0 to 1"),
    "norm": (
        "falcon-h1",
        {"mamba_rms_norm": True},
        "mamba_norm_before_gate is None: a mixer's own norm is supported behind its",
    ),
    "multipliers": ("falcon-h1", {"ssm_multipliers": [1.0]}, "it is a list of 5 numbers"),
    "beside": (
        "granite4-moe",
        {"shared_intermediate_size": 40},
        "is 40: only whole multiples of an expert's",
    ),
    "kinds": ("granite4-dense", {"layer_types": ["linear_attention", "x"]}, "layer_types is ['x']: only"),
    "count": (
        "granite4-dense",
        {"layer_types": ["mamba"]},
        "['mamba']: it names 1 layers, num_hidden_layers is 2",
    ),
    "period": ("jamba", {"attn_layer_offset": 4}, "attn_layer_offset is 4: it is 0 to 1, below the period"),
    "chosen": ("jamba", {"num_experts_per_tok": 5}, "5 of 4 experts"),
    "width": ("jamba", {"mamba_d_conv": 1}, "mamba_d_conv is 1: a convolution that keeps inputs"),
    "delta taps": (
        "qwen3-next",
        {"linear_conv_kernel_dim": 1},
        "linear_conv_kernel_dim is 1: a convolution that",
    ),
    "delta heads": ("qwen3-next", {"linear_num_key_heads": 3}, "groups 3 do not divide 4 ssm_heads"),
    "delta layers": ("qwen3-next", {"layer_types": ["x"] * 4}, "only linear_attention, full_attention"),
    "delta count": ("qwen3-next", {"layer_types": ["full_attention"]}, "num_hidden_layers is 2"),
    "delta state": ("qwen3-next", {"mamba_ssm_dtype": "bfloat16"}, "'bfloat16': states are kept in float32"),
    "no gate": ("qwen3.5-moe", {"attn_output_gate": False}, "attention of this model_type has a gate"),
    "dense layers": (
        "qwen3-next",
        {"mlp_only_layers": [4]},
        "mlp_only_layers is [4]: it names layers, 0 to 1",
    ),
    "shared width": ("qwen3.5-moe", {"shared_expert_intermediate_size": 64}, "as wide as others, 16"),
    "more chosen": ("qwen3.5-moe", {"num_experts_per_tok": 7}, "7 of 6 experts"),
    "letter": ("nemotron-h", {"hybrid_override_pattern": "M-*X"}, "hybrid_override_pattern is 'X': only M, "),
    "letters": ("nemotron-h", {"num_hidden_layers": 5}, "'M-*-': it names 4 layers, num_hidden_layers is 5"),
    "groups by their key": ("bamba", {"mamba_n_groups": 3}, "mamba_n_groups is 3: groups of B and C"),
    "latent": ("nemotron-3", {"moe_latent_size": "x"}, "moe_latent_size is 'x'"),
    "beside squares": (
        "nemotron-3",
        {"moe_shared_expert_intermediate_size": 48},
        "is 48: only whole multiples of an expert's moe_intermediate_size, 32",
    ),
    "no shared one": ("nemotron-3", {"n_shared_experts": 0}, "n_shared_experts is 0: layers with experts"),
    "router's groups": ("nemotron-3", {"n_group": 4}, "6 experts in 4 groups"),
    "words": ("nemotron-h", {"layers_block_type": ["rnn"]}, "layers_block_type is 'rnn': only linear_att"),
    "squares": ("nemotron-h", {"mlp_hidden_act": "silu"}, "mlp_hidden_act is 'silu': only relu2"),
    "positions": ("granite4-dense", {"position_embedding_type": "alibi"}, "it is rope or nope"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_computed_is_refused_by_its_key(case: str, tmp_path: Path) -> None:
    name, keys, words = WRONG[case]
    held = json.loads((FOLDERS / name / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(held | keys))
    with pytest.raises(WeightError) as refused:
        read_config(tmp_path)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_layers_that_predict_further_tokens_are_named_in_a_note(tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "qwen3.5-moe", tmp_path / "model")
    held = load_file(tmp_path / "model/model.safetensors")
    held["mtp.layers.0.input_layernorm.weight"] = held["mtp.norm.weight"] = np.zeros(48, np.float16)
    save_file(held, tmp_path / "model/model.safetensors")
    (note,) = open_folder(tmp_path / "model").notes
    assert "2 tensors of 1 layers that predict further tokens (mtp." in note


def test_a_gate_of_a_shared_expert_is_of_one_beside_softmax_scores() -> None:
    config = read_config(FOLDERS / "qwen3.5-moe")
    assert isinstance(config, HybridConfig)
    with pytest.raises(ValueError, match="a gate is of one shared expert beside softmax scores, not of 0"):
        replace(config, shared=0)
    assert config_of(json.loads(json.dumps(config.to_fields()))) == config
    sums, one = ShapedArray((2, 7), np.dtype(np.float32)), ShapedArray((2, 1), np.dtype(np.float32))
    exponents = ShapedArray((7,), np.dtype(np.int32))
    (made,) = OPS["route"].shape(sums, one, exponents, routing=config.routing)
    assert made.shape == (2, 7)


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "mamba2", tmp_path / "model")
    held = load_file(tmp_path / "model/model.safetensors")
    del held["backbone.layers.1.mixer.dt_bias"]
    save_file(held, tmp_path / "model/model.safetensors")
    with pytest.raises(WeightError, match=r"1 tensors .* missing \(backbone\.layers\.1\.mixer\.dt_bias\)"):
        open_folder(tmp_path / "model")


def test_patterns_are_words_of_known_parts_one_for_each_layer(tmp_path: Path) -> None:
    config = read_config(FOLDERS / "bamba")
    assert isinstance(config, HybridConfig)
    assert config.pattern == ("MF", "AF")
    for pattern, words in (
        (("MF", "XF"), "layer 1 of the pattern is 'XF': 'X' is no part"),
        (("MF",), "pattern names 1 layers, there are 2"),
        (("MF", ""), "layer 1 of the pattern is ''"),
        (("PA", "F"), "P is a mixer and attention"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(config, pattern=pattern)
    for field, value, words in (
        ("ssm_heads", 7, "ssm_heads 7 do not divide 128 channels"),
        ("groups", 3, "groups 3 do not divide 4 ssm_heads"),
        ("states", 0, "states is 0, the least is 1"),
        ("taps", 1, "taps is 1, a convolution that keeps inputs has 2 or more"),
        ("step_high", -1.0, "0 <= low <= high"),
        ("step_norms", True, "step_norms are of Mamba-1, rank is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(config, **{field: value})
    with pytest.raises((ValueError, TypeError), match="rule"):  # a TypeError where shapes are checked
        replace(config, rule="kda")
    latent = read_config(FOLDERS / "nemotron-3-latent")
    assert isinstance(latent, HybridConfig)
    for field, value in (("shared_ffn", 0), ("latent", 0), ("shared", 2), ("squared", False)):
        with pytest.raises(ValueError, match="squared experts of latents have an FFN beside them"):
            replace(latent, **{field: value})
    jamba = read_config(FOLDERS / "jamba")
    assert isinstance(jamba, HybridConfig)
    assert (jamba.pattern, jamba.turns) == (("AF", "ME"), False)
    for field, value, words in (
        ("experts", 0, "1 layers of the pattern have experts, experts is 0"),
        ("chosen", 5, "5 of 4 experts"),
        ("expert_ffn", 0, "expert_ffn is 0, the least is 1"),
        ("pattern", ("MF",) * 2, "0 layers of the pattern have experts, experts is 4"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(jamba, **{field: value})
    assert config_of(json.loads(json.dumps(jamba.to_fields()))) == jamba
    assert config_of(json.loads(json.dumps(config.to_fields()))) == config
    file = tmp_path / "model.yaml"
    file.write_text("family: hybrid\nlayers: 1\nhidden: 48\nheads: 1\nffn: 1\nvocab: 96\npattern: [MQ]\n"
                    "channels: 96\nstates: 16\nssm_heads: 4\n")  # fmt: skip
    assert main(["compile", str(file), "--rack", "pair"]) == 2


def test_ops_with_states_refuse_shapes_that_do_not_go_together() -> None:
    def f32(*shape: int) -> ShapedArray:
        return ShapedArray(shape, np.dtype(np.float32))

    position = ShapedArray((2,), np.dtype(np.int32))
    taps = (f32(8),) * 4
    for state, given, words in (
        (f32(2, 3, 7), taps, "kept values and channels of the state"),
        (f32(3, 3, 8), taps, "2 rows are no equal share for 3 sequences"),
        (f32(2, 3, 8), taps[:1], "1 vectors beside 3 kept inputs, .* 4 taps and perhaps a bias"),
        (f32(2, 4, 8), taps, "4 vectors beside 4 kept inputs"),
        (f32(2, 0, 8), taps[:1], "beside 0 kept inputs, of which there is at least 1"),
        (f32(2, 3, 8), (*taps[:3], f32(7)), "tap 3 has 7 channels, x has 8"),
    ):
        with pytest.raises(ValueError, match=words):
            OPS["conv"].shape(f32(2, 8), state, position, *given)
    good = {"raw": f32(2, 4), "bc": f32(2, 6), "decay": f32(8), "d": f32(8), "state": f32(2, 3, 8)}
    for change, words in (
        ({"raw": f32(2, 3)}, "3 time steps do not divide 8 channels"),
        ({"bc": f32(2, 8)}, "bc has 8 lanes, 1 groups of 3 states take 6"),
        ({"decay": f32(9)}, "decay has 9 numbers, it takes 8 or 24"),
        ({"d": f32(7)}, "d has 7 numbers, x 8 channels"),
    ):
        with pytest.raises(ValueError, match=words):
            OPS["ssm"].shape(f32(2, 8), *(good | change).values(), position, groups=1, low=0.0, high=1.0)
    for shape, lanes in (((2, 8), 7), ((2, 2, 4), 6), ((2, 2, 2, 2), 8)):
        with pytest.raises(ValueError, match=r"rms_norm32: (gain|x) has"):
            OPS["rms_norm32"].shape(f32(*shape), f32(lanes), eps=1e-5)
    with pytest.raises(ValueError, match="shapes of x and z"):
        OPS["gate"].shape(f32(2, 8), f32(2, 7))


def test_decays_are_rounded_once() -> None:
    logarithm = np.array([0.0, 1.0, -2.5], np.float32)
    assert decay(logarithm).tolist() == [np.float32(-np.exp(float(one))) for one in logarithm]
