"""States of fixed size as the prefix cache keeps them: of one sequence, one behind the other.

A state is not cut by tokens: it is taken from the cache of a step where a block of a prompt ends, and put
back where a prompt goes on behind that block.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lpu.decode.prefixes.cache import StateBytes
from models.kv import KVCache


def leaves_of(state: StateBytes, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The states of a sequence one by one. shapes: (kept, channels) of each."""
    sizes = [kept * channels for kept, channels in shapes]
    parts = np.split(state, np.cumsum(sizes)[:-1]) if sizes else []
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def state_of(cache: KVCache, sequence: int) -> StateBytes:
    """What the layers of a sequence keep whatever its length."""
    parts = [np.asarray(leaf[sequence], np.float32).reshape(-1) for leaf in cache.state]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def with_state(cache: KVCache, sequence: int, state: StateBytes) -> KVCache:
    """The cache with the states of a sequence put back. Raises ValueError for another count of numbers."""
    sizes = [leaf[sequence].size for leaf in cache.state]
    if state.shape != (sum(sizes),):
        raise ValueError(f"kv-cache: the state has {state.size} numbers, the model keeps {sum(sizes)}.")
    parts = leaves_of(state, [leaf.shape[1:] for leaf in cache.state])
    put = [leaf.at[sequence].set(jnp.asarray(part)) for leaf, part in zip(cache.state, parts, strict=True)]
    return cache._replace(state=tuple(put))
