"""Folders made by tests/models/data/make_families.py, with the logits of transformers 5.24 in f32, eager."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import slow_but

from models.contract.plain import plain, plain_cache, plain_params
from models.kv import empty_cache
from models.sources.error import WeightError
from models.sources.huggingface.config import read_config
from models.sources.huggingface.folder import open_folder
from models.sources.weights import check_shapes, weight_shapes
from models.step import Step, family_step

FOLDERS = sorted(Path(__file__).parents[1].glob("data/families/*"))
QUICK = [folder for folder in FOLDERS if folder.name in ("phi3", "granite", "smollm3", "bert-labels")]
CLOSE_TO_TRANSFORMERS, CLOSE_TO_PLAIN = 1e-5, 3e-3
Arrays = dict[str, jax.Array]


def logits_of(step: Step, params: Arrays, tokens: np.ndarray, *, exact: bool) -> np.ndarray:
    """All tokens of one sequence in one chunk."""
    at, run = jnp.arange(len(tokens), dtype=jnp.int32), jax.jit(step.fn) if exact else plain(step.fn)
    cache = empty_cache(step.cache) if exact else plain_cache(step.cache)
    return np.asarray(run(params, jnp.asarray(tokens), at, cache)[0])


def apart(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference over the largest logit."""
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("folder", slow_but(QUICK, FOLDERS), ids=lambda folder: folder.name)
def test_the_logits_of_a_family_are_those_of_transformers_and_the_contract_keeps_to_them(
    folder: Path,
) -> None:
    weights = open_folder(folder)
    with np.load(folder / "expected.npz") as expected:
        tokens, wanted = expected["tokens"], expected["logits"]
    step = family_step(weights.config, batch=1, context=len(tokens), chunk=len(tokens))
    check_shapes(weights, weight_shapes(step))

    def params(get: Callable[[str], np.ndarray], constants: dict[str, Any]) -> Arrays:
        return {name: jnp.asarray(get(name)) for name in weights.shapes} | {
            name: jnp.asarray(value) for name, value in constants.items()
        }

    stored = params(weights.plain, step.plain_constants)
    assert apart(logits_of(step, stored, tokens, exact=False), wanted) <= CLOSE_TO_TRANSFORMERS
    rounded = params(weights.__getitem__, step.constants)
    contract = logits_of(step, rounded, tokens, exact=True)
    plain_ones = plain_params(rounded) | {k: jnp.asarray(v) for k, v in step.plain_constants.items()}
    same = logits_of(step, plain_ones, tokens, exact=False)
    assert apart(contract, same) <= CLOSE_TO_PLAIN
    best = np.sort(same, axis=-1)
    clear = best[:, -1] - best[:, -2] > CLOSE_TO_PLAIN * np.abs(same).max()
    assert clear.any()
    assert (contract.argmax(-1) == same.argmax(-1))[clear].all()


GEMMA3, MISTRAL, SMOLLM, OLMO3, QWEN3 = "gemma3_text", "mistral", "smollm3", "olmo3", "qwen3"
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "a window of 0": (
        MISTRAL,
        {"sliding_window": 0},
        "sliding_window is 0: it is a whole number of at least 1",
    ),
    "a negative window": (
        GEMMA3,
        {"sliding_window": -4},
        "sliding_window is -4: it is a whole number of at least 1",
    ),
    "fewer layer types than layers": (
        GEMMA3,
        {"layer_types": ["full_attention"]},
        "names 1 layers, num_hidden_layers is 2",
    ),
    "more layer types than layers": (
        QWEN3,
        {"layer_types": ["full_attention"] * 3},
        "names 3 layers, num_hidden_layers is 2",
    ),
    "an unknown layer type": (
        OLMO3,
        {"layer_types": ["full_attention", "mamba"]},
        "only full_attention, sliding_attention is supported",
    ),
    "layers without RoPE of another length": (
        SMOLLM,
        {"no_rope_layers": [1]},
        "names 1 layers, num_hidden_layers is 2",
    ),
    "layers without RoPE that are neither 0 nor 1": (
        SMOLLM,
        {"no_rope_layers": [1, 2]},
        "no_rope_layers is [1, 2]: it is a list of 0 and 1",
    ),
    "windows of layers without RoPE": (
        SMOLLM,
        {"use_sliding_window": True},
        "windows of layers without RoPE",
    ),
    "a scaled RoPE in layers with a window": (
        GEMMA3,
        {
            "rope_parameters": {
                "full_attention": {},
                "sliding_attention": {"rope_type": "linear", "factor": 2.0},
            }
        },
        "rope_parameters.sliding_attention.rope_type is 'linear': only default",
    ),
    "a RoPE of an unknown kind of layer": (
        OLMO3,
        {"rope_parameters": {"chunked_attention": {"rope_type": "default"}}},
        "only full_attention, sliding_attention are supported",
    ),
    "a cap of 0": (
        GEMMA3,
        {"final_logit_softcapping": 0.0},
        "logit_cap is 0.0, it must be finite and above 0",
    ),
    "a cap that is no number": ("gemma2", {"attn_logit_softcapping": "50"}, "it is a finite number"),
    "logits divided by 0": ("granite", {"logits_scaling": 0}, "logits_scaling is 0.0: it must be above 0"),
    "another family": ("cohere2", {}, "model_type is 'cohere2': none of the "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_family_cannot_be_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    kind, keys, reason = REFUSED[case]
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 96,
        "max_position_embeddings": 256,
    }
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"model_type": kind} | keys))
    with pytest.raises(WeightError) as refused:
        read_config(tmp_path)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)
