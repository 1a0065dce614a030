"""Families with experts: folders of transformers, the contract beside plain f32, batches and chunks."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.catalog import catalog
from models.contract.plain import plain, plain_cache, plain_params
from models.experts import ExpertsConfig
from models.kv import empty_cache
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config
from models.sources.huggingface.folder import open_folder
from models.step import family_step

VARIANTS = Path(__file__).parents[1] / "data/variants"
OSS = ("gpt-oss", "gpt-oss-mxfp4")
FOLDERS = ("mixtral", "qwen3-moe", "qwen3-moe-renormalised", "jamba", "nemotron-h", *OSS)


@pytest.mark.parametrize("name", FOLDERS)
def test_the_contract_is_near_plain_f32_in_chunks_and_in_single_steps_the_same(name: str) -> None:
    weights = open_folder(VARIANTS / name)
    with np.load(VARIANTS / name / "expected.npz") as expected:
        tokens = expected["tokens"][:6]
    count, at = len(tokens), jnp.arange(6, dtype=jnp.int32)
    chunk = family_step(weights.config, batch=1, context=count, chunk=count)
    params = {path: jnp.asarray(weights[path]) for path in weights.shapes}
    params |= {path: jnp.asarray(value) for path, value in chunk.constants.items()}
    logits = np.asarray(jax.jit(chunk.fn)(params, jnp.asarray(tokens), at, empty_cache(chunk.cache))[0])
    near = plain_params(params) | {path: jnp.asarray(v) for path, v in chunk.plain_constants.items()}
    other = np.asarray(plain(chunk.fn)(near, jnp.asarray(tokens), at, plain_cache(chunk.cache))[0])
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
    ],
)
def test_a_folder_that_means_something_else_is_refused(
    name: str, line: tuple[str, str], words: str, tmp_path: Path
) -> None:
    text = (VARIANTS / name / "config.json").read_text()
    assert line[0] in text
    (tmp_path / "config.json").write_text(text.replace(*line))
    with pytest.raises(WeightError, match=words):
        read_config(tmp_path)


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = VARIANTS / "mixtral"
    data = (folder / "model.safetensors").read_bytes()
    gone = b"experts.3.w2.weight"
    (tmp_path / "model.safetensors").write_bytes(data.replace(gone, b"experts.9.w2.weight"))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightError, match=r"1 tensors that config.json asks for are missing .*3\.w2"):
        open_folder(tmp_path)
