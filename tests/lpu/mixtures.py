"""Small mixtures of experts, compiled: what their tests share."""

from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from beside import Arrays, bits, compiled
from models_named import of_model

from compiler.program.program import Program
from lpu.run.machine import Machine, prepare
from models.configs.experts import ExpertsConfig
from models.configs.gpt_oss import GptOssConfig
from models.kv import empty_cache
from models.sources.seeded import seeded
from models.sources.weights import weight_shapes
from models.step import Step

MIXTURE = ExpertsConfig(
    name="mixture", layers=1, hidden=160, heads=4, kv_heads=2, head_dim=32, ffn=96, vocab=240, tied=False,
    rope_theta=1e4, eps=1e-5, max_context=80, source="made up for tests", experts=8, chosen=2,
)  # fmt: skip
OSS = GptOssConfig(
    name="small-oss", layers=2, hidden=160, heads=4, kv_heads=2, head_dim=32, ffn=96, vocab=240, tied=False,
    rope_theta=150_000.0, eps=1e-5, max_context=80, source="made up for tests", experts=8, chosen=2,
    window=16, kinds=("window", "full"),
)  # fmt: skip
MANY = replace(MIXTURE, name="many", experts=100, chosen=3, renormalise=False, ffn=64, qk_norm=True)


@cache
def mixture(config: ExpertsConfig, rack: str, batch: int, options: tuple[tuple[str, Any], ...]) -> Any:
    """(step, program) of a mixture, with its numbers in the manifest."""
    step, program = compiled(config, rack, batch=batch, **dict(options))
    return step, of_model(program, config)


def drawn(step: Step, seed: int = 0) -> Arrays:
    """Weights by seed: a router of theirs prefers some experts."""
    held = seeded(weight_shapes(step), seed)
    return {name: held[name] for name in held.shapes} | dict(step.constants)


def assert_bits(step: Step, program: Program, weights: Arrays, steps: int = 2) -> Machine:
    """The program and the model itself give the same bits, step by step."""
    machine = prepare(program, weights)
    state, cache_ = machine.start(), empty_cache(step.cache)
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    tokens, reference = np.arange(3, 3 + step.batch, dtype=np.int32), jax.jit(step.fn)
    for position in range(steps):
        at = np.full(step.batch, position, np.int32)
        found = machine.step(state, tokens, at)
        logits, token, cache_ = reference(params, jnp.asarray(tokens), jnp.asarray(at), cache_)
        assert bits(found.logits) == bits(logits)
        assert np.isfinite(np.asarray(logits)).all()
        state, tokens = found.state, np.asarray(token)
    return machine
