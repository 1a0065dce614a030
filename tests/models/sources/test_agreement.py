"""Folders made by benchmarks/hf_variants.py, with the logits of transformers 5.24 in f32, eager attention."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import slow_but

from models.contract.plain import plain, plain_cache
from models.sources.huggingface.folder import HuggingFaceWeights, open_folder
from models.sources.weights import check_shapes, weight_shapes
from models.step import family_step

VARIANTS = sorted(Path(__file__).parents[1].glob("data/variants/*"))
LONG = (
    "bamba",
    "falcon-h1",
    "falcon-h1-normed",
    "glm4-moe",
    "granite4-moe",
    "kimi-experts",
    "llama-both-biases",
    "mamba",
    "mixtral",
    "qwen3-moe",
    "qwen3-next",
    "qwen3.5-moe",
)  # to compile by XLA
QUICK = [folder for folder in VARIANTS if folder.name not in LONG]


def plain_logits(weights: HuggingFaceWeights, tokens: np.ndarray) -> np.ndarray:
    """The logits of all tokens in plain f32 with the checkpoint's own weights."""
    count = len(tokens)
    step = family_step(weights.config, batch=1, context=count, chunk=count)
    check_shapes(weights, weight_shapes(step))
    params = {name: jnp.asarray(weights.plain(name)) for name in weights.shapes}
    params |= {name: jnp.asarray(value) for name, value in step.plain_constants.items()}
    at = jnp.arange(count, dtype=jnp.int32)
    run = jax.jit(plain(step.fn))  # as a whole, which takes less than compiling each of its operations
    return np.asarray(run(params, jnp.asarray(tokens), at, plain_cache(step.cache))[0])


@pytest.mark.parametrize("folder", slow_but(QUICK, VARIANTS), ids=lambda folder: folder.name)
def test_the_logits_of_a_folder_are_those_of_transformers(folder: Path) -> None:
    with np.load(folder / "expected.npz") as expected:
        got, wanted = plain_logits(open_folder(folder), expected["tokens"]), expected["logits"]
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_what_is_not_used_of_a_larger_model_is_named() -> None:
    nested = next(folder for folder in VARIANTS if folder.name == "qwen2-nested")
    assert "1 tensors of pictures or sound (model.vision_tower" in open_folder(nested).notes[0]


def test_a_head_that_differs_from_the_table_unties_the_model() -> None:
    tied = {folder.name: open_folder(folder).config.tied for folder in VARIANTS if "tied" in folder.name}
    assert tied == {"llama-tied-only-head": True, "llama-tied-other-head": False}
    other = next(folder for folder in VARIANTS if folder.name == "llama-tied-other-head")
    assert (
        "lm_head.weight differs from model.embed_tokens.weight, so it is the head"
        in open_folder(other).notes[0]
    )
