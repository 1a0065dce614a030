"""Routings made to be awkward, for a fixture of every kind of router: the model's bits, and the same cycles.

What a step takes is in the program alone, which is compiled once and knows no weights.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beside import Arrays
from mixtures import assert_bits, drawn
from slow import slow_but

from lpu import api

FOLDERS = Path(__file__).parents[1] / "models" / "data"
FIXTURES = {
    "softmax over the chosen": "variants/mixtral",
    "softmax over all": "variants/qwen3-moe",
    "softmax with a bias": "variants/gpt-oss",
    "softmax beside a dense FFN": "variants/gemma4-experts",
    "a shared expert with a gate": "variants/qwen3-next",
    "sigmoid with a bias and shared experts": "variants/glm4-moe",
    "sigmoid in groups, latent attention": "latent/v3-experts",
    "sigmoid in groups, an indexer that keeps all": "latent/v32-experts",
    "softmax, latent attention": "latent/v2-lite",
    "sigmoid that multiplies the input": "variants/llama4",
    "experts between states": "variants/granite4-moe",
}
QUICK = ("softmax over the chosen", "sigmoid with a bias and shared experts")


@cache
def compiled(folder: str) -> Any:
    opened = api.open_model(str(FOLDERS / folder), batch=3, context=24)
    return opened.step, api.compile(opened, rack="pair", tp=2, pp=1)


def _last(weights: Arrays, name: str) -> None:
    """All rows prefer the last experts, by a lane that all tokens have alike."""
    weights["embed.table"][:, 0] = 8
    weights[f"{name}.halves"][:] = 0
    weights[f"{name}.halves"][0, -2:] = 1000


def _equal(weights: Arrays, name: str) -> None:
    weights[f"{name}.halves"][:] = 0


def _pairs(weights: Arrays, name: str) -> None:
    halves = weights[f"{name}.halves"]
    halves[:, 1::2] = halves[:, ::2][:, : halves[:, 1::2].shape[1]]
    weights[f"{name}.exponent"][:] = -12


def _extreme(weights: Arrays, name: str) -> None:
    """Logits of such a size that a softmax is 1 or 0, and so is a sigmoid."""
    weights[f"{name}.exponent"][:] = 4


def _one_group(weights: Arrays, name: str) -> None:
    """The first half of the experts, whatever the rows say: by a bias where there is one."""
    if f"{name}.bias" not in weights:
        weights[f"{name}.halves"][:, weights[f"{name}.halves"].shape[1] // 2 :] = 0
        return
    bias = weights[f"{name}.bias"]
    bias[:] = -1e4
    bias[: len(bias) // 2] = 1e4


ADVERSARIES: dict[str, Callable[[Arrays, str], None]] = {
    "all rows the same experts": _last,
    "all logits equal": _equal,
    "logits equal in pairs": _pairs,
    "extremes": _extreme,
    "one group": _one_group,
}


@pytest.mark.parametrize("kind", slow_but(QUICK, FIXTURES))
def test_any_routing_has_the_models_bits_and_the_same_cycles(kind: str) -> None:
    step, made = compiled(FIXTURES[kind])
    assert made.proof.ok
    routers = [name.removesuffix(".halves") for name in step.params if name.endswith("router.halves")]
    assert routers
    counts: list[dict[str, int]] = []
    for spoil in ADVERSARIES.values():
        weights = {path: np.array(value) for path, value in drawn(step, 5).items()}
        for name in routers:
            spoil(weights, name)
        counts.append(assert_bits(step, made.program, weights).counts(24))
    assert all(one == counts[0] for one in counts)
