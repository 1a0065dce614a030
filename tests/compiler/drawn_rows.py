"""Drawn rows for the list scheduler: (edges, resource, hold, latency, width, free)."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def problems(
    draw: st.DrawFn,
) -> tuple[np.ndarray, list[int], list[int], list[int], list[int], dict[int, int]]:
    size = draw(st.integers(1, 30))
    pairs = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=60))
    edges = np.array(sorted({(min(p), max(p)) for p in pairs if p[0] != p[1]}), np.int64).reshape(-1, 2)
    resource = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    hold = draw(st.lists(st.integers(1, 9), min_size=size, max_size=size))
    extra = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    width = [draw(st.integers(1, 3)) if r == 2 else 1 for r in resource]
    latency = [h + e for h, e in zip(hold, extra, strict=True)]
    return edges, resource, hold, latency, width, {0: 1, 1: 0b11, 2: 0b1111}
