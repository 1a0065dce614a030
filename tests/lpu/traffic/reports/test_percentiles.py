"""Percentiles by hand, and that their intervals hold what they say they hold."""

from math import inf

import numpy as np
import pytest

from lpu.traffic.reports.percentiles import over_seeds, spread


def test_percentiles_are_values_that_occurred() -> None:
    found = spread(np.arange(1.0, 101.0))
    assert found is not None
    assert [one.value for one in found.percentiles] == [50, 90, 95, 99]
    assert (found.mean, found.most, found.count) == (50.5, 100, 100)
    assert (found.at(0.5).low, found.at(0.5).high) == (40, 61)
    assert found.at(0.99).high == inf
    assert spread(np.array([])) is None


def test_an_interval_of_independent_values_holds_the_percentile_in_95_of_100() -> None:
    draw = np.random.default_rng(0)
    held = [0, 0]
    for _ in range(400):
        found = spread(draw.random(500))
        assert found is not None
        for i, q in enumerate((0.5, 0.9)):
            held[i] += found.at(q).low <= q <= found.at(q).high
    assert all(375 <= count <= 396 for count in held)


def test_over_seeds_the_interval_is_students_t() -> None:
    runs = [spread(np.array([value])) for value in (1.0, 2.0, 3.0)]
    found = over_seeds([one for one in runs if one])
    assert found.at(0.5).value == 2
    assert found.at(0.5).high == pytest.approx(2 + 4.303 / 3**0.5)
    assert found.at(0.5).low == 0
