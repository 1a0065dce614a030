"""Experts, MLA, all-to-all and served steps: met as they are, beyond their limits with a wrong number."""

from dataclasses import replace

import pytest

from lpu.validate.cases.gpu import experts, steps
from lpu.validate.cases.point import PublishedPoint

MEASURED = experts.table()


def failed(points: tuple[PublishedPoint, ...]) -> list[str]:
    return [point.name for point in points if point.passed is False]


def test_latent_attention_of_a_gpu_follows_from_its_sister_and_wrong_times_do_not() -> None:
    assert failed(experts.latent_points(MEASURED)) == []
    wrong = [replace(row, seconds=row.seconds * (2 if row.gpu == "b200" else 1)) for row in MEASURED.rows]
    (name,) = failed(experts.latent_points(experts.Measured(rows=tuple(wrong))))
    assert name.startswith("MLA decode, GPUs of one generation")


def test_experts_of_a_model_follow_from_other_models_and_wrong_times_do_not() -> None:
    some = [row for row in MEASURED.rows if row.gpu == "h200" and row.format == "fp8_block"]
    assert failed(experts.model_points(experts.Measured(rows=(*some, _beyond())))) == []
    wrong = [replace(row, seconds=row.seconds * (2 if row.model == "kimi-k2" else 1)) for row in some]
    assert failed(experts.model_points(experts.Measured(rows=(*wrong, _beyond()))))


def _beyond() -> experts.MeasuredLaunch:
    return next(row for row in MEASURED.rows if row.operator == "moe" and row.beyond_datasheet)


def test_skew_helps_few_tokens_on_one_gpu_and_hurts_many_on_many() -> None:
    assert failed(experts.skew_points(MEASURED)) == []
    flat = tuple(replace(row, asked=_balanced(row)) for row in MEASURED.rows)
    assert failed(experts.skew_points(experts.Measured(rows=flat)))


def _balanced(row: experts.MeasuredLaunch) -> tuple[float, ...]:
    same = [
        other
        for other in MEASURED.rows
        if experts.shape_key(other) == experts.shape_key(row) and other.alpha == 0
    ]
    return same[0].asked if same else row.asked


def test_the_exchange_meets_its_figures_and_a_wrong_rate_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failed(experts.exchange_points(MEASURED)) == []
    exchange, size = experts.H800_CX7["dispatch"]
    monkeypatch.setitem(experts.H800_CX7, "dispatch", (replace(exchange, remote=exchange.remote / 2), size))
    assert len(failed(experts.exchange_points(MEASURED))) == 5


@pytest.mark.parametrize("name", ["vllm", "trtllm", "sglang"])
def test_served_steps_are_met_and_a_wrong_engine_is_not(name: str) -> None:
    served = steps.table()
    points = steps.points_of(1, name)
    assert failed(points(served)) == []
    by = served.engines[name]
    wrong = replace(by, numbers={key: 1.4 * value for key, value in by.numbers.items()})
    assert failed(points(replace(served, engines={name: wrong})))


def test_rows_that_are_left_out_are_named() -> None:
    points = steps.points_of(1, "trtllm")(steps.table())
    assert [point.published for point in points if point.name.startswith("left out")] == [2, 15]
