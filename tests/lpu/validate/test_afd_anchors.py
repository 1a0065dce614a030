"""Published figures of attention/FFN disaggregation: they are met, and the checks fail where they should."""

from dataclasses import replace
from fractions import Fraction

import pytest

from lpu.pingpong.pingpong import period_bounds, steady_period
from lpu.validate.cases.afd import (
    ascend_910c,
    ascend_910c_operators,
    fastafd,
    step3,
    step3_tables,
    sweeps,
)
from lpu.validate.cases.afd.anchors import CASES
from lpu.validate.cases.point import PublishedPoint

INPUTS = ascend_910c.INPUTS


def named(points: tuple[PublishedPoint, ...]) -> dict[str, PublishedPoint]:
    return {point.name: point for point in points}


@pytest.fixture(scope="module")
def modelled() -> dict[str, PublishedPoint]:
    return named(ascend_910c.points())


@pytest.mark.slow
def test_every_case_has_points_of_its_number_and_all_verdicts_are_good() -> None:
    assert [case.number for case in CASES] == [101, 102, 103, 104, 105, 108, 110, 111, 112]
    assert len({case.title for case in CASES} | {case.remark for case in CASES} - {""}) == 2 * len(CASES)
    for case in CASES:
        found = case.points(None)
        assert {point.case for point in found} == {case.number}
        assert all(point.passed is not False for point in found)
        assert len({point.name for point in found}) == len(found)


def test_both_directions_of_step3_need_the_same_rate() -> None:
    assert [point.modelled for point in step3.rate_points()] == [161.3, 161.3]


def test_the_least_sparsities_are_within_a_thousandth_of_the_published() -> None:
    for point in step3.sparsity_points():
        assert abs(point.modelled - point.published) < 0.001


def test_the_network_of_one_device_instead_of_a_servers_would_not_do() -> None:
    alone = {name: replace(one, network_bytes=one.network_bytes // 8) for name, one in step3.DEVICES.items()}
    assert not any(point.passed for point in step3.sparsity_points(alone))


def test_an_l20_holds_328_thousand_tokens() -> None:
    read, context = step3.device_points()
    assert (round(read.modelled), round(context.modelled)) == (235, 328)


def test_the_identity_of_fastafd_to_the_third_digit() -> None:
    found = [round(point.modelled, 3) for point in fastafd.points() if point.kind == "anchor"]
    assert found == [1.453, 1.377, 1.404, 1.438]


def test_another_ratio_of_devices_would_miss_the_papers_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {name: replace(one, ratio=3) for name, one in fastafd.SYSTEMS.items()}
    monkeypatch.setattr(fastafd, "SYSTEMS", wrong)
    assert not any(point.passed for point in fastafd.points())


def test_projections_say_so_and_have_no_verdict() -> None:
    for point in fastafd.projections():
        assert point.name.startswith("projection")
        assert point.passed is None


def test_a_second_micro_batch_at_most_doubles_and_a_third_adds_at_most_half() -> None:
    assert (max(sweeps.gains(2)), max(sweeps.gains(3))) == (2, 1.5)
    assert sweeps.gains(3)[:3] == [1, Fraction(21, 20), Fraction(11, 10)]


def test_without_overlap_the_bounds_of_megascale_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sweeps,
        "steady_period",
        lambda plan: Fraction(period_bounds(plan)["latency"] * plan.micro_batches),
    )
    checks = [point for point in sweeps.megascale_points() if point.kind == "check"]
    assert not any(point.passed for point in checks)


def test_an_equal_split_draws_with_devices_that_do_both() -> None:
    (point,) = sweeps.parity_points()
    assert (point.modelled, point.passed) == (1, None)


@pytest.mark.slow
@pytest.mark.parametrize("length", ["16K", "32K"])
def test_splitting_off_the_experts_loses_at_three_to_one_and_wins_at_four_to_one(
    length: str, modelled: dict[str, PublishedPoint]
) -> None:
    assert modelled[f"{length}, 48A16F against EP64"].modelled < 0
    assert modelled[f"{length}, 64A16F against EP64"].modelled > 0
    assert modelled[f"{length}, EP64 from below"].modelled == 2


@pytest.mark.parametrize("length", ["16K", "32K"])
def test_the_inputs_of_the_sources_lie_within_the_range_of_the_order(
    length: str, modelled: dict[str, PublishedPoint]
) -> None:
    for name in ("links, down and up", "fixed time of attention"):
        least, most = (modelled[f"{length}, {name}: {end} with this order"] for end in ("least", "most"))
        assert 0 <= least.modelled < least.published < most.modelled


def test_outside_of_that_range_the_checks_fail() -> None:
    for scale in (0.5, 1.5):
        other = replace(INPUTS, a2e=INPUTS.a2e * scale, e2a=INPUTS.e2a * scale)
        found = named(ascend_910c.verdicts(other))
        assert found["16K, EP64 from below"].passed is False
        assert found["16K, 48A16F, its sign" if scale < 1 else "16K, 64A16F, its sign"].passed is False


def test_what_was_said_about_the_inputs_would_turn_the_signs(modelled: dict[str, PublishedPoint]) -> None:
    assert modelled["16K, 64A16F, if EP64 reads two experts"].modelled < 0
    assert modelled["16K, 48A16F, if links are wires"].modelled > 0


def test_the_split_deployments_wait_for_their_round_trip() -> None:
    """Two micro-batches do not hide links of 365 us: a layer takes all four stages, not two of attention."""
    plan = ascend_910c.plan(ascend_910c.DEPLOYMENTS["48A16F"], 16)
    assert steady_period(plan) == pytest.approx(period_bounds(plan)["latency"], rel=0.03)
    assert steady_period(plan) > 1.2 * period_bounds(plan)["attention"]


def test_ep64_is_the_same_schedule_with_one_micro_batch() -> None:
    plan = ascend_910c.plan(ascend_910c.DEPLOYMENTS["EP64"], 32)
    assert plan.micro_batches == 1
    assert steady_period(plan) == period_bounds(plan)["latency"]


def test_operators_grow_with_what_they_read() -> None:
    attention = ascend_910c_operators.attention_seconds
    assert attention(INPUTS, 14, 32_768) > attention(INPUTS, 14, 16_384) > attention(INPUTS, 7, 16_384)
    weights = 5 * 3 * 7168 * 2048 / (1.6e12 * 0.55)
    assert ascend_910c_operators.experts_seconds(INPUTS, 14) == pytest.approx(weights)
    assert ascend_910c_operators.experts_seconds(INPUTS, 10_000) > weights


def test_tokens_written_are_half_of_1024_and_the_spread() -> None:
    assert ascend_910c.mean_position() == pytest.approx(512 + 1024**2 / 12 / 2048)


def test_step3_tables_fail_for_another_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(point.passed for point in step3_tables.points())
    wrong = replace(step3_tables.MODELS["Step-3"], layers=60)
    monkeypatch.setitem(step3_tables.MODELS, "Step-3", wrong)
    assert [point.name for point in step3_tables.points() if not point.passed] == [
        "Step-3, KV of a sequence",
        "Step-3, attention of a token",
    ]
