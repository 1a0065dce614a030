"""Users in flight: each user's logits have the bits that the model gives on one device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from beside import bits, compiled, made_up
from shapes import SMALL

from lpu.check.check import check
from lpu.run.machine import prepare
from models.kv import empty_cache


def test_users_in_flight_get_the_bits_of_the_model_each() -> None:
    step, program = compiled(SMALL, "quad", tp=2, objective="throughput", users=3)
    waves = program.manifest.waves
    assert waves is not None
    users = waves.users
    assert users == 3
    assert waves.contexts[80].interval < program.manifest.cycles[80]
    weights = made_up(step)
    machine = prepare(program, weights)
    params = {name: jnp.asarray(value) for name, value in weights.items()}
    reference = jax.jit(step.fn)
    states: list[Any] = [machine.start() for _ in range(users)]
    caches = [empty_cache(step.cache) for _ in range(users)]
    tokens = [np.array([3 + 5 * user], np.int32) for user in range(users)]
    for position in range(2):
        for user in range(users):  # as they enter the pipeline, an interval apart
            at = np.array([position], np.int32)
            result = machine.step(states[user], tokens[user], at)
            logits, token, caches[user] = reference(
                params, jnp.asarray(tokens[user]), jnp.asarray(at), caches[user]
            )
            assert bits(result.logits) == bits(logits)
            states[user], tokens[user] = result.state, np.asarray(token)


def test_several_context_buckets_have_intervals_of_their_own() -> None:
    _, program = compiled(SMALL, "quad", contexts=(80, 640), tp=2, objective="throughput")
    assert program.manifest.waves is not None
    entries = program.manifest.waves.contexts
    assert entries[80].interval <= entries[640].interval
    for context in (80, 640):
        assert check(program, context).ok
