"""The greatest cycle mean of a max-plus matrix: how often a system of waits and work repeats, exactly."""

from collections.abc import Sequence
from fractions import Fraction

NEVER = -(1 << 200)
"""No path; any sum with it stays below NEVER / 2 as long as times are below 2 ** 198."""


def greatest_cycle_mean(matrix: Sequence[Sequence[int]]) -> Fraction:
    """Time per round of x'[j] = max over i of x[i] + matrix[i][j], after enough rounds; NEVER: no dependence.

    Karp's algorithm over walks of 0 to n edges that may begin anywhere. Raises ValueError without a cycle.
    Source: R. M. Karp, A characterization of the minimum cycle mean in a digraph, Discrete Mathematics 1978.
    """
    nodes = range(len(matrix))
    best = [[0] * len(matrix)]
    for _ in nodes:
        last = best[-1]
        best.append([max(last[i] + matrix[i][j] for i in nodes) for j in nodes])
    found = [
        min(Fraction(best[-1][j] - best[k][j], len(matrix) - k) for k in nodes if best[k][j] > NEVER // 2)
        for j in nodes
        if best[-1][j] > NEVER // 2
    ]
    if not found:
        raise ValueError("max_plus: no cycle, so nothing repeats")
    return max(found)
