"""Caches of prefixes that tests fill, save and read."""

from typing import Any

import numpy as np
from small_sides import ids

from lpu.decode.prefixes.cache import DTYPES, Binding, Layout, PrefixCache

BLOCK = 16


def binding(**chosen: Any) -> Binding:
    fields: dict[str, Any] = {
        "weights": "1a" * 32, "tokenizer": "bytes", "positions": "2b" * 32, "arithmetic": "3c" * 32,
        "kv": "fp8", "layout": Layout(layers=2, kv_heads=1, head_dim=4),
    }  # fmt: skip
    return Binding(**fields | chosen)


def filled(bound: Binding, prompts: int = 3, **options: Any) -> PrefixCache:
    """Prompts of 40 tokens with a common first block, of every bit pattern of the format."""
    cache, rng = PrefixCache(bound, BLOCK, **options), np.random.default_rng(0)
    dtype, layout = DTYPES[bound.kv], bound.layout
    shape = (layout.layers, 40, layout.kv_heads, layout.head_dim)
    first = [rng.integers(0, 256, (*shape[:1], BLOCK, *shape[2:], dtype.itemsize)) for _ in range(2)]
    for i in range(prompts):
        arrays: list[np.ndarray] = []
        for common in first:
            raw = rng.integers(0, 256, (*shape, dtype.itemsize)).astype(np.uint8)
            raw[:, :BLOCK] = common
            arrays.append(np.ascontiguousarray(raw).view(dtype)[..., 0])
        k, v = arrays
        cache.store([*ids(BLOCK), *ids(24, i)], k, v)
    return cache
