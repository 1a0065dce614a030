"""Pictures of a comparison: every strategy has its look, points at one place are all seen."""

from pathlib import Path

import pytest

from lpu.compare.compare import Comparison, RackComparison
from lpu.compare.pictures import draw, look, pareto, rings
from lpu.compare.point import Point

pytest.importorskip("matplotlib")
PNG = b"\x89PNG"


def point(strategy: str, latency: int, period: int) -> Point:
    return Point(
        strategy=strategy,
        seed=0,
        latency_cycles=latency,
        microseconds=latency / 1000,
        period_cycles=period,
        clock_hz=10**9,
        busy_cycles=[period, 0, period, 0],
        stage=[0, -1, 1, -1],
        best=[[1, latency]],
        evaluations=9,
    )


def comparison(rack: str, name: str = "m") -> Comparison:
    points = tuple(point(f"{name}-{i}", 10 + i // 3, 9 - i // 3) for i in range(14))
    return Comparison(model=name, racks=(RackComparison(rack=rack, points=points, chip="lp30"),))


def test_a_hundred_strategies_differ_in_colour_or_marker() -> None:
    assert len({tuple(look(i).values()) for i in range(100)}) == 100


def test_each_further_point_at_one_place_is_a_larger_ring() -> None:
    seen: dict[tuple[int, int], int] = {}
    assert rings([point("a", 1, 1), point("a", 1, 1), point("a", 2, 1)], seen) == [1, 2, 1]
    assert rings([point("b", 1, 1)], seen) == [3]


def test_numbers_of_points_close_together_are_not_written_over_each_other() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    near = [point(name, 1000 + at, 3000 + 10 * at) for at in range(4) for name in ("a", "b")]
    pareto(figure, RackComparison(rack="quad", points=(*near, point("c", 3000, 500)), chip="lp30"), "m")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize("rack", ["quad", "gone.yaml"])
def test_pictures_are_drawn_twice_the_same_also_of_hostile_names(rack: str, tmp_path: Path) -> None:
    found = comparison(rack, "$\\frac{1}{0}$\u202e\x1b[31m\n" + "x" * 300)
    first, again = draw(found, tmp_path / "a"), draw(found, tmp_path / "b")
    assert len(first) == 3
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes().startswith(PNG)
        assert one.read_bytes() == other.read_bytes()
