"""A made-up model compiled, and run beside the model itself: what tests of programs that run share."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.manifest import ModelIdentity
from compiler.program.program import Program
from compiler.source import Source
from fabric.rack import Rack, load_rack
from lpu.run.machine import Machine, prepare
from models.config import TransformerConfig
from models.kv import KVFormat, empty_cache
from models.step import Step, family_step

Arrays = dict[str, np.ndarray]


def made_up(step: Step, seed: int = 0) -> Arrays:
    """Weights of any bytes, with scales that keep activations near 1."""
    random, out = np.random.default_rng(seed), dict[str, np.ndarray]()
    for name, shape in step.params.items():
        if name in step.constants:
            out[name] = step.constants[name]
        elif name.endswith(".codes"):
            codes = random.integers(0, 256, shape.shape, np.uint8)
            out[name] = np.where(codes & 0x7F > 0x60, codes & 0xBF, codes)
        elif name.endswith(".exponent"):
            out[name] = random.integers(-9, -5, shape.shape).astype(np.int32)
        elif name.endswith(".scale"):
            out[name] = random.uniform(2**-9, 2**-6, shape.shape).astype(np.float32)
        elif name.endswith(".decay"):
            out[name] = -random.uniform(0.05, 2, shape.shape).astype(np.float32)
        else:
            out[name] = (1 + 0.3 * random.standard_normal(shape.shape)).astype(shape.dtype)
    return out


def compiled(
    config: TransformerConfig,
    rack: str | Rack,
    contexts: tuple[int, ...] = (80,),
    batch: int = 1,
    kv: KVFormat = "fp16",
    **options: Any,
) -> tuple[Step, Program]:
    config = replace(config, max_context=max(contexts))
    step = family_step(config, batch=batch, context=max(contexts), kv=kv)
    params, tokens, position, cache = step.inputs()
    source = Source(
        step=step.fn,
        params=params,
        tokens=tokens,
        position=position,
        cache=cache,
        contexts=contexts,
        model=ModelIdentity(),
    )
    rack = load_rack(rack) if isinstance(rack, str) else rack
    return step, compile_program(source, rack, CompileOptions(**options))


def bits(x: Any) -> list[int]:
    return np.asarray(x).view(np.uint32).reshape(-1).tolist()


def assert_same(step: Step, program: Program, positions: list[list[int]], seed: int = 0) -> Machine:
    """The scheduled program and the model itself, step by step from the same tokens."""
    weights = made_up(step, seed)
    machine = prepare(program, weights)
    state, cache = machine.start(), empty_cache(step.cache)
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    tokens = np.arange(3, 3 + step.batch, dtype=np.int32)
    reference = jax.jit(step.fn)
    for position in positions:
        at = np.array(position, np.int32)
        result = machine.step(state, tokens, at)
        logits, token, cache = reference(params, jnp.asarray(tokens), jnp.asarray(at), cache)
        assert bits(result.logits) == bits(logits)
        assert np.asarray(result.token).tolist() == np.asarray(token).tolist()
        state, tokens = result.state, np.asarray(token)
    return machine
