"""Consecutive numbers for every entry of an array, and the first entry that is true."""

import numpy as np
from jaxtyping import Bool, Int


def ramp(counts: Int[np.ndarray, " entries"]) -> Int[np.ndarray, " total"]:
    """0 .. c-1 for each count, end to end."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def first_of(bad: Bool[np.ndarray, " entries"]) -> int:
    """Index of the first True, or -1."""
    return int(np.argmax(bad)) if bad.any() else -1
