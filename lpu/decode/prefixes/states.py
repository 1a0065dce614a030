"""States of fixed size as the prefix cache keeps them: of one sequence, one behind the other.

A state is not cut by tokens: it is taken from the cache of a step where a block of a prompt ends, and put
back where a prompt goes on behind that block.
"""

import jax.numpy as jnp
import numpy as np

from lpu.decode.prefixes.cache import StateBytes
from models.kv import KVCache


def state_of(cache: KVCache, sequence: int) -> StateBytes:
    """What the layers of a sequence keep whatever its length."""
    parts = [np.asarray(leaf[sequence], np.float32).reshape(-1) for leaf in cache.state]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def with_state(cache: KVCache, sequence: int, state: StateBytes) -> KVCache:
    """The cache with the states of a sequence put back. Raises ValueError for another count of numbers."""
    sizes = [leaf[sequence].size for leaf in cache.state]
    if state.shape != (sum(sizes),):
        raise ValueError(f"kv-cache: the state has {state.size} numbers, the model keeps {sum(sizes)}.")
    parts = np.split(state, np.cumsum(sizes)[:-1]) if sizes else []
    put = [
        leaf.at[sequence].set(jnp.asarray(part.reshape(leaf.shape[1:])))
        for leaf, part in zip(cache.state, parts, strict=True)
    ]
    return cache._replace(state=tuple(put))
