"""Rows that the experts of the most loaded rank get, for the two ways in which the measured tables route.

Source: aiconfigurator's collector (facts moe.md 3.3, gpu_moe_mla.md 7.3): "balanced" is strided, so as many
experts as can be are distinct; the power law draws counts and takes the most loaded rank.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float64, Int64

DRAWS = 8
LEAST_SHARE, MOST_SHARE = 0.01, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLoad:
    """Of the most loaded rank, means over draws: experts with a row, rows of all, rows of the fullest one."""

    distinct: float
    rows: float
    top: float


@cache
def rank_load(tokens: int, experts: int, topk: int, ranks: int, alpha: float = 0.0) -> RankLoad:
    """The load of `tokens` tokens that choose `topk` of `experts` on `ranks` ranks. alpha: 0 is balanced."""
    if alpha == 0.0:
        return _of([_balanced(tokens, experts, topk)], ranks)
    random = np.random.Generator(np.random.PCG64(0))
    return _of(
        [_power_law(tokens, experts, topk, alpha, random.random(experts)) for _ in range(DRAWS)], ranks
    )


def _of(draws: list[Int64[np.ndarray, " experts"]], ranks: int) -> RankLoad:
    distinct, rows, top = 0.0, 0.0, 0.0
    for counts in draws:
        by_rank = counts.reshape(ranks, -1)
        most = by_rank[int(by_rank.sum(axis=1).argmax())]
        distinct += float((most > 0).sum()) / len(draws)
        rows += float(most.sum()) / len(draws)
        top += float(most.max()) / len(draws)
    return RankLoad(distinct=distinct, rows=rows, top=top)


def _balanced(tokens: int, experts: int, topk: int) -> Int64[np.ndarray, " experts"]:
    stride = -(-experts // topk)
    first = np.arange(tokens) if tokens >= stride else np.arange(tokens) * stride // tokens
    chosen = (first[:, None] + np.arange(topk) * stride) % experts
    return np.bincount(chosen.ravel(), minlength=experts).astype(np.int64)


def _power_law(
    tokens: int, experts: int, topk: int, alpha: float, uniform: Float64[np.ndarray, " experts"]
) -> Int64[np.ndarray, " experts"]:
    """Counts in proportion to samples of x^-alpha, no expert above `tokens`, all together tokens * topk."""
    low, high = (1.0, MOST_SHARE * tokens) if tokens * topk > experts else (LEAST_SHARE, 2.0)
    high, power = max(high, low * (1 + 1e-6)), 1 - alpha
    sample = ((high**power - low**power) * uniform + low**power) ** (1 / power)
    wanted = np.minimum(sample / sample.sum() * tokens * topk, tokens)
    counts = np.floor(wanted).astype(np.int64)
    rest, order = tokens * topk - int(counts.sum()), np.argsort(counts - wanted, kind="stable")
    while rest > 0:
        free = order[counts[order] < tokens][:rest]
        counts[free] += 1
        rest -= len(free)
    return counts
