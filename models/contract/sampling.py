"""A seeded choice among logits: integers all the way, so equal wherever and beside whatever it is made.

The random number depends on the seed and on the place of the token in its own sequence, never on the row of
the batch, on chips or on steps. Source: facts/contract2.md section 8b.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from models.contract.numerics import EXPQ_TABLE

_BITS = 28  # of a weight
_LOG2E = 387_270_501 / 16  # 2^24 log2(e), as in numerics.expq
_ROUNDS, _WORD = 10, (1 << 32) - 1
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_TINY = np.float32(2.0**-126)
LEAST_TEMPERATURE = 1e-3

Logits = Float32[np.ndarray, " vocab"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a token is drawn. temperature: 0 takes the most likely one.

    top_k (0: all), min_p and top_p, applied in this order, say how many tokens can be drawn.
    """

    seed: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or LEAST_TEMPERATURE <= self.temperature < np.inf):
            raise ValueError(f"temperature: is {self.temperature}, must be 0 or at least {LEAST_TEMPERATURE}")
        if self.top_k < 0:
            raise ValueError(f"top-k: is {self.top_k}, must be at least 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p: is {self.top_p}, must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min-p: is {self.min_p}, must be 0 to 1")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"sample seed: is {self.seed}, must be 0 to 2^64 - 1")


GREEDY = Sampling()


class Drawn(NamedTuple):
    """A token, the weight of all tokens that were kept, and how many they were; 0 and 0 at temperature 0."""

    token: int
    mass: int
    kept: int


def draw(logits: Logits, how: Sampling, position: int) -> Drawn:
    """The token at `position` of its own sequence."""
    if how.temperature == 0:
        return Drawn(int(np.argmax(logits)), 0, 0)
    weights = _weights(logits, how.temperature)
    kept = _kept(logits, weights, how)
    weights = np.where(kept, weights, 0)
    total = int(weights.sum())
    x = philox((position & _WORD, position >> 32, 0, 0), (how.seed & _WORD, how.seed >> 32))
    at = (x[0] | x[1] << 32) * total >> 64
    token = int(np.searchsorted(np.cumsum(weights), at, side="right"))
    return Drawn(token, total, int(kept.sum()))


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 of a counter and a key of 32-bit words. Source: Salmon et al., Random123."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        a, b = _MULTIPLY[0] * c0, _MULTIPLY[1] * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & _WORD, (a >> 32) ^ c3 ^ k1, a & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _weights(logits: Logits, temperature: float) -> Int64[np.ndarray, " vocab"]:
    """About 2^28 e^((z - max z) / T) each: `numerics.expq` in numpy."""
    with np.errstate(over="ignore"):  # what is that far below weighs nothing
        below = _flushed(logits - logits.max()).astype(np.float64)
        t = _flushed((below * (1 / temperature)).astype(np.float32))
    z = -np.rint(np.maximum(t, np.float32(-40)).astype(np.float64) * _LOG2E).astype(np.int64)
    n, f = z >> 24, z & 0xFFFFFF
    d = ((f & 0x3FFF) * 744_261_118) >> 24
    c = (1 << 30) - d + ((d * d) >> 31)
    m = (EXPQ_TABLE[f >> 14].astype(np.int64) * c) >> 30
    h = n + 30 - _BITS
    return np.where(h > 31, 0, (m + (1 << np.clip(h - 1, 0, 31))) >> np.clip(h, 0, 32))


def _kept(logits: Logits, weights: Int64[np.ndarray, " vocab"], how: Sampling) -> Bool[np.ndarray, " vocab"]:
    """Which tokens can be drawn; of equal logits at a border the lowest ids stay."""
    order = np.argsort(-logits, kind="stable")
    if how.top_k:
        order = order[: how.top_k]
    if how.min_p:
        order = order[weights[order] << 16 >= round(how.min_p * 65536) << _BITS]
    if how.top_p < 1:
        held = weights[order].cumsum()
        enough = held << 16 >= round(how.top_p * 65536) * held[-1]
        order = order[: int(np.argmax(enough)) + 1]
    kept = np.zeros(len(logits), bool)
    kept[order] = True
    return kept


def _flushed(values: Float32[np.ndarray, " vocab"]) -> Float32[np.ndarray, " vocab"]:
    return np.where(np.abs(values) < _TINY, np.float32(0), values)
