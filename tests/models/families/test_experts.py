"""Families with experts, recurrent ones: folders, the contract beside plain f32, batches and chunks."""

import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from slow import slow_but

from models.catalog import catalog
from models.configs.experts import ExpertsConfig
from models.configs.scored import ScoredExperts
from models.contract.plain import plain, plain_cache, plain_params
from models.kv import empty_cache
from models.published.count import parameters
from models.published.entries import published
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config
from models.sources.huggingface.folder import open_folder
from models.step import family_step

VARIANTS = Path(__file__).parents[1] / "data/variants"
OSS = ("gpt-oss", "gpt-oss-mxfp4")
FOLDERS = ("mixtral", "qwen3-moe", "qwen3-moe-renormalised", "jamba", "nemotron-h", *OSS)
GATED = ("qwen3-next", "qwen3.5-moe", "granite4-moe", "nemotron-3", "nemotron-3-latent")
RECURRENT = ("mamba", "mamba2", "falcon-h1", "bamba", "granite4-dense")
GLM_PARTS = ("experts.5.down_proj.weight", "gate.e_score_correction_bias", "shared_experts.up_proj.weight")
SCORED = ("glm4-moe", "glm4-moe-qk-norm", "minimax-m2", "olmoe", "granite-moe")


@pytest.mark.parametrize("name", slow_but(["gpt-oss-mxfp4"], (*FOLDERS, *SCORED, *GATED, *RECURRENT)))
def test_the_contract_is_near_plain_f32_in_chunks_and_in_single_steps_the_same(name: str) -> None:
    weights = open_folder(VARIANTS / name)
    with np.load(VARIANTS / name / "expected.npz") as expected:
        tokens = expected["tokens"][:6]
    count, at = len(tokens), jnp.arange(6, dtype=jnp.int32)
    chunk = family_step(weights.config, batch=1, context=count, chunk=count)
    params = {path: jnp.asarray(weights[path]) for path in weights.shapes}
    params |= {path: jnp.asarray(value) for path, value in chunk.constants.items()}
    logits = np.asarray(jax.jit(chunk.fn)(params, jnp.asarray(tokens), at, empty_cache(chunk.cache))[0])

    @jax.jit
    def near(params: dict[str, jax.Array]) -> jax.Array:
        """In plain f32; compiled as a whole, which takes less than compiling each of its operations."""
        held = plain_params(params) | {path: jnp.asarray(v) for path, v in chunk.plain_constants.items()}
        return plain(chunk.fn)(held, jnp.asarray(tokens), at, plain_cache(chunk.cache))[0]

    other = np.asarray(near(params))
    assert np.abs(logits - other).max() <= 3e-3 * np.abs(other).max()
    assert (logits.argmax(axis=1) == other.argmax(axis=1)).all()
    five = family_step(weights.config, batch=5, context=count)
    run, cache = jax.jit(five.fn), empty_cache(five.cache)
    for i, token in enumerate(tokens):
        row = jnp.asarray([token, *range(4)], jnp.int32)
        found, _, cache = run(params, row, jnp.full(5, i, jnp.int32), cache)
        assert np.array_equal(np.asarray(found)[0], logits[i])


def test_all_experts_of_a_layer_share_their_exponents_and_each_is_rounded_as_well() -> None:
    weights = open_folder(VARIANTS / "mixtral")
    codes, exponent = (weights[f"layers.0.ffn.gate_up.{what}"] for what in ("codes", "exponent"))
    assert (codes.shape, exponent.shape) == ((4, 64, 64), (64,))
    assert weights.relative_errors["layers.0.ffn.gate_up.codes"] < 0.03
    assert weights["layers.0.ffn.router.halves"].dtype == np.float16


@pytest.mark.parametrize("name", ["mixtral-8x7b", "qwen3-30b-a3b"])
def test_a_token_takes_part_in_as_many_parameters_as_published(name: str) -> None:
    config = catalog(name)
    assert isinstance(config, ExpertsConfig)
    assert config.published_active is not None
    assert config.active_parameters() == pytest.approx(config.published_active, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chosen": 9}, "chosen is 9, it is 1 to experts, 8"),
        ({"experts": 2000, "chosen": 2}, "the most is 1024"),
    ],
)
def test_numbers_that_no_mixture_has_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(catalog("moe-tiny"), **changes)


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("mixtral", ('"num_experts_per_tok": 2', '"num_experts_per_tok": 5'), "there are 4 experts"),
        ("qwen3-moe", ('"mlp_only_layers": []', '"mlp_only_layers": [0]'), "mlp_only_layers is .0."),
        ("qwen3-moe", ('"decoder_sparse_step": 1', '"decoder_sparse_step": 2'), "decoder_sparse_step is 2"),
        ("glm4-moe", ('"num_experts_per_tok": 2', '"num_experts_per_tok": 7'), "there are 6 experts"),
        ("glm4-moe", ('"n_group": 3', '"n_group": 4'), "in 4 groups, of which 2 are kept"),
        ("glm4-moe", ('"topk_group": 2', '"topk_group": 5'), "in 3 groups, of which 5 are kept"),
        ("glm4-moe", ('"n_shared_experts": 1', '"n_shared_experts": -1'), "n_shared_experts is -1"),
        (
            "glm4-moe",
            ('"first_k_dense_replace": 1', '"first_k_dense_replace": 2'),
            "dense is 2, it is 0 to 1",
        ),
        ("glm4-moe", ('"partial_rotary_factor": 0.5', '"partial_rotary_factor": 0.3'), "turns 9 of 32 lanes"),
        ("minimax-m2", ('"rotary_dim": 16', '"rotary_dim": 24'), "partial_rotary_factor is 0.5"),
        ("minimax-m2", ('"num_local_experts": 6', '"num_local_experts": 2'), "there are 2 experts"),
        ("minimax-m2", ('"hidden_act": "silu"', '"scoring_func": "softmax"'), "scoring_func is 'softmax'"),
    ],
)
def test_a_folder_that_means_something_else_is_refused(
    name: str, line: tuple[str, str], words: str, tmp_path: Path
) -> None:
    text = (VARIANTS / name / "config.json").read_text()
    assert line[0] in text
    (tmp_path / "config.json").write_text(text.replace(*line))
    with pytest.raises(WeightError, match=words) as refused:
        read_config(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "gone", "other"),
    [("mixtral", "experts.3.w2.weight", "experts.9.w2.weight")]
    + [("glm4-moe", f"mlp.{one}", f"mlp.{one[:-1]}?") for one in GLM_PARTS],
)
def test_an_expert_that_is_missing_is_named(name: str, gone: str, other: str, tmp_path: Path) -> None:
    folder = VARIANTS / name
    data = (folder / "model.safetensors").read_bytes()
    assert gone.encode() in data
    (tmp_path / "model.safetensors").write_bytes(data.replace(gone.encode(), other.encode()))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(
        WeightError, match=f"1 tensors that config.json asks for are missing .*{re.escape(gone)}"
    ):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    "name", ["glm-4.5-air", "glm-4.6", "glm-4.7-flash", "minimax-m2", "deepseek-v2-lite"]
)
def test_a_published_mixture_has_the_parameters_that_are_counted_of_it(name: str) -> None:
    config, found = catalog(name), parameters(published()[name].config)
    assert isinstance(config, ScoredExperts)
    assert found is not None
    assert config.parameters() == found.total
    assert config.layers == published()[name].config["num_hidden_layers"]
    if config.published_parameters is not None:
        assert config.parameters() == pytest.approx(config.published_parameters, rel=0.02)


def test_layers_that_predict_further_tokens_are_not_used_and_said_so(tmp_path: Path) -> None:
    folder = VARIANTS / "glm4-moe"
    held = load_file(folder / "model.safetensors")
    layer = {name.replace("layers.1.", "layers.2."): held[name] for name in held if ".layers.1." in name}
    head = {"model.layers.2.eh_proj.weight": np.zeros((64, 128), np.float16)}
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(held | layer | head, tmp_path / "model.safetensors")
    (note,) = open_folder(tmp_path).notes
    assert f"{len(layer) + 1} tensors of 1 layers that predict further tokens (model.layers.2." in note
    save_file(held | layer, tmp_path / "model.safetensors")
    with pytest.raises(WeightError, match=f"{len(layer)} have no place in it"):
        open_folder(tmp_path)


def test_one_tensor_of_all_experts_has_the_shape_that_the_config_makes_it(tmp_path: Path) -> None:
    folder = VARIANTS / "granite-moe"
    text = (folder / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"intermediate_size": 24', '"intermediate_size": 20'))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(WeightError, match=r"has shape \[6, 48, 64\], config.json makes it \[6, 40, 64\]"):
        open_folder(tmp_path)
