"""Spares: the closed form of the time that a rack serves, against parts that fail one by one."""

import heapq

import numpy as np
import pytest

from lpu import api
from lpu.inputs.document import FileError
from lpu.spares.availability import (
    POLICIES,
    FailureRates,
    Policy,
    RackParts,
    failures_per_year,
    serving_share,
)

PARTS = RackParts(trays=4, chips_of_tray=3, cables=6)


def simulated(policy: Policy, parts: RackParts, rates: FailureRates, hours: float, seed: int) -> float:
    """The share of time that a rack serves: every part fails and is repaired, event by event."""
    random = np.random.default_rng(seed)
    racks = 2 if policy == "rack" else 1
    units = [
        (rack, tray, chip)
        for rack in range(racks)
        for tray in range(parts.trays)
        for chip in range(-1, parts.chips_of_tray)
    ]
    mean = {-1: 1e9 / rates.tray_fit}
    failed = np.zeros((racks, parts.trays, parts.chips_of_tray + 1), bool)
    queue = [(random.exponential(mean.get(unit[2], 1e9 / rates.chip_fit)), i) for i, unit in enumerate(units)]
    heapq.heapify(queue)
    now, up = 0.0, 0.0
    while now < hours:
        at, i = heapq.heappop(queue)
        up += (min(at, hours) - now) * serves(policy, failed)
        now = at
        rack, tray, chip = units[i]
        failed[rack, tray, chip] ^= True
        wait = rates.repair_hours if failed[rack, tray, chip] else mean.get(chip, 1e9 / rates.chip_fit)
        heapq.heappush(queue, (now + random.exponential(wait), i))
    return up / hours


def serves(policy: Policy, failed: np.ndarray) -> bool:
    """Whether the spares cover what is failed; the last entry of each tray is the tray itself."""
    if policy == "chip":
        return bool((~failed[0, :, -1] & (failed[0, :, :-1].sum(axis=1) <= 1)).all())
    if policy == "tray":
        return bool(failed[0].any(axis=1).sum() <= 1)
    return bool((~failed.any(axis=(1, 2))).any())


@pytest.mark.parametrize("policy", POLICIES)
def test_the_closed_form_agrees_with_parts_that_fail_one_by_one(policy: Policy) -> None:
    rates = FailureRates(chip_fit=2e6, tray_fit=1e6, repair_hours=40)
    shares = [simulated(policy, PARTS, rates, 20_000, seed) for seed in range(24)]
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - serving_share(policy, PARTS, rates)) < 4 * error
    assert error < 0.01


def test_a_spare_never_serves_less_and_no_failures_serve_always() -> None:
    rates = FailureRates()
    shares = {policy: serving_share(policy, PARTS, rates) for policy in POLICIES}
    assert shares["none"] == min(shares.values())
    never = FailureRates(chip_fit=0, tray_fit=0)
    assert all(serving_share(policy, PARTS, never) == 1 for policy in POLICIES)


def test_rack_arithmetic_is_that_of_the_facts() -> None:
    lpx = RackParts(trays=32, chips_of_tray=8, cables=0)
    for fit, hours in ((1_000, 3_906), (5_000, 781), (12_600, 310)):
        rates = FailureRates(chip_fit=fit, tray_fit=0, link_fit=0)
        assert round(365 * 24 / failures_per_year(lpx, rates)) == hours


@pytest.mark.parametrize("name", ["chip_fit", "repair_hours"])
@pytest.mark.parametrize("value", [-1.0, 2e9, float("nan")])
def test_a_rate_that_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(FileError, match="must be from 0"):
        FailureRates(**{name: value})


def test_policies_of_a_small_rack_keep_their_spares_idle() -> None:
    found = api.spares("llama-tiny", rack="lpx", context=64, tp=2)
    points = {one.policy: one for one in found.points}
    assert [points[p].capacity_lost for p in POLICIES] == [0, 32 / 256, 8 / 256, 0.5]
    assert points["chip"].reach == 1
    assert points["none"].faulty_cycles is None
    assert points["tray"].faulty_cycles
    assert points["none"].serving < points["tray"].serving
    assert len(found.rows()) == 4
    assert "assumed rates" in str(found)


def test_a_rack_without_equal_trays_is_refused() -> None:
    with pytest.raises(FileError, match="no equal trays"):
        api.spares("llama-tiny", rack="quad;chip:1", context=64)
