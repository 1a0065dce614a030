"""Served LLMs: inside their bands, and outside with a wrong number of any mechanism."""

from dataclasses import replace

import pytest

from lpu.report.words import CAUTION_FACTOR, caution
from lpu.validate.cases.tsp import served, served_model
from lpu.validate.cases.tsp.machine import catalog_machine

MACHINE = catalog_machine()


def failed() -> list[str]:
    return [point.name for point in served.llm_points(MACHINE) if point.passed is False]


def test_the_four_served_rows_are_inside_bands_at_most_twice_as_high_as_low() -> None:
    rows = [point for point in served.llm_points(MACHINE) if point.kind != "shown"]
    assert len(rows) == 4
    for row in rows:
        assert row.passed
        assert row.band is not None
        assert row.band[1] <= 2 * row.band[0]


def test_sixteen_bits_at_the_rate_of_eight_leave_the_small_models_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served_model, "FP16_RATE", 1)
    assert {"Llama-2-7B", "Llama-3-8B"} <= set(failed())


def test_slow_all_reduces_leave_a_row_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "PHASE_NS", 4000)
    assert failed()


def test_a_host_of_a_millisecond_leaves_a_row_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "HOST_US", (1000.0,))
    assert failed()


def test_the_caution_of_every_lpx_result_is_what_the_first_chip_shows() -> None:
    (point,) = served.caution_points(MACHINE)
    assert point.passed
    half = replace(MACHINE, chip=MACHINE.chip.with_numbers("a test", weight_install_frac=0.09))
    assert not served.caution_points(half)[0].passed
    assert f"{CAUTION_FACTOR:g} x" in str(caution("lp30"))
    assert caution("groqchip1") is None


def test_gemma_stands_beside_bounds_that_only_speculation_lets_reach_the_vendors_figure() -> None:
    points = {point.name: point for point in served.gemma_points(MACHINE)}
    assert len(points) == 6
    for name, inside in (
        ("Gemma-4-31B 100K, independent, no speculation", True),
        ("Gemma-4-31B 10K, independent, no speculation", True),
        ("Gemma-4-31B 16K, vendor, no speculation", False),
        ("Gemma-4-31B 16K, vendor, up to 3 a step", True),
    ):
        low, high = points[name].band or (0, 0)
        assert (low <= points[name].published <= high) is inside, name
