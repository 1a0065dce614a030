"""The configurations as a plot of characters: what they cost against the time to the first token."""

from collections.abc import Sequence
from math import log10

from lpu.plan.verdict import Judged

WIDTH, HEIGHT = 64, 14


def front(good: Sequence[Judged]) -> list[Judged]:
    """Those that no other beats in both rack equivalents and TTFT, the cheapest first."""
    found: list[Judged] = []
    for one in sorted(good, key=lambda v: (v.configuration.racks, v.ttft or 0.0)):
        if not found or (one.ttft or 0.0) < (found[-1].ttft or 0.0):
            found.append(one)
    return found


def plot(good: Sequence[Judged], refused: Sequence[Judged], target_ms: float) -> str:
    """Rack equivalents to the right, TTFT upwards (logarithmic): O the front, o others that meet the targets.

    x: replayed, and too slow. The line is the target.
    """
    shown = [*good, *(one for one in refused if one.ttft)]
    if not shown:
        return ""
    points = [(one.configuration.racks, (one.ttft or 0.0) * 1000) for one in shown]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low = log10(min(min(y for _, y in points), target_ms))
    high = log10(max(max(y for _, y in points), target_ms))
    across, up = right - left or 1.0, high - low or 1.0

    def row(ms: float) -> int:
        return round((high - log10(ms)) / up * (HEIGHT - 1))

    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    cells[row(target_ms)] = ["-"] * WIDTH
    best = set(map(id, front(good)))
    marks = {"x": 0, "o": 1, "O": 2}
    order = sorted(zip(shown, points, strict=True), key=lambda pair: marks[_mark(pair[0], best)])
    for one, (x, y) in order:
        cells[row(y)][round((x - left) / across * (WIDTH - 1))] = _mark(one, best)
    lines = ["".join(line).rstrip() for line in cells]
    label = [f"{10**high:>10,.1f} ms |", *[f"{'':>13} |"] * (HEIGHT - 2), f"{10**low:>10,.1f} ms |"]
    drawn = [f"{name}{line}" for name, line in zip(label, lines, strict=True)]
    foot = f"{'':>14}{left:<.2f}{f'{right:.2f} rack equivalents':>{WIDTH - 3}}"
    return "\n".join(["TTFT", *drawn, foot])


def _mark(one: Judged, best: set[int]) -> str:
    return "x" if one.reason else "O" if id(one) in best else "o"
