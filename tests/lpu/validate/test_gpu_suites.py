"""Experts, MLA, all-to-all and served steps: met as they are, beyond their limits with a wrong number."""

from dataclasses import replace

import numpy as np
import pytest

from fabric.catalog import gpu_spec
from lpu.gpu.served.first_token import loads, waits
from lpu.gpu.served.shape import named
from lpu.gpu.served.step import Serving
from lpu.traffic.served import Prefiller, Prompt, Served, StepPace
from lpu.traffic.simulation.simulate import simulate
from lpu.traffic.trace import Trace
from lpu.validate.cases.gpu import experts, first_tokens, steps
from lpu.validate.cases.gpu.experts import ONE_MODEL
from lpu.validate.cases.gpu.folds import band, held_out
from lpu.validate.cases.gpu.left_out import OTHER_FORMATS, OTHER_KERNELS, SAME, nearest
from lpu.validate.cases.point import PublishedPoint

MEASURED = experts.table()


def failed(points: tuple[PublishedPoint, ...]) -> list[str]:
    return [point.name for point in points if point.passed is False]


def test_latent_attention_of_a_gpu_follows_from_others_and_wrong_times_do_not() -> None:
    assert failed(experts.latent_points(MEASURED)) == []
    wrong = [replace(row, seconds=row.seconds * (2 if row.gpu == "b200" else 1)) for row in MEASURED.rows]
    assert any(
        "on b200" in name for name in failed(experts.latent_points(experts.Measured(rows=tuple(wrong))))
    )


def test_latent_attention_of_hopper_does_not_follow_with_the_tiles_of_blackwell() -> None:
    """Padded to 128 rows there as well, heads of the H200 would take up to twice as long."""
    wrong = tuple(
        replace(row, asked=(row.asked[0], row.asked[1] * 128 / max(64, row.asked[2]), *row.asked[2:]))
        if row.gpu == "h200"
        else row
        for row in MEASURED.rows
        if row.operator == "mla_decode"
    )
    assert any("on h200" in name for name in failed(experts.latent_points(experts.Measured(rows=wrong))))


def test_experts_of_a_gpu_follow_from_others_and_wrong_times_do_not() -> None:
    assert failed(experts.device_points(MEASURED)) == []
    wrong = [replace(row, seconds=row.seconds * (2 if row.gpu == "gb200" else 1)) for row in MEASURED.rows]
    assert len(failed(experts.device_points(experts.Measured(rows=tuple(wrong))))) >= 4


def test_a_balanced_series_is_left_out_whole_and_a_power_law_beyond_stays() -> None:
    counted = {row.id for row in MEASURED.of("moe")}
    gone = [row for row in MEASURED.rows if row.operator == "moe" and row.id not in counted]
    assert len(gone) == 31
    assert {(row.format, row.ranks, row.alpha) for row in gone} == {("nvfp4", 1, 0.0)}
    assert all(row.alpha for row in MEASURED.of("moe") if row.beyond_datasheet)


def test_a_model_is_predicted_from_the_nearest_kernel_that_others_have() -> None:
    every = MEASURED.of("moe")

    def found(model: str, form: str) -> tuple[set[str], set[str], str]:
        row = next(one for one in every if (one.model, one.format, one.gpu) == (model, form, "b200"))
        train, nearness = nearest([one for one in every if one.model != model], row)
        return {one.kernel for one in train}, {one.format for one in train}, nearness

    assert found("qwen3-30b", "fp8_block") == ({"deepgemm"}, {"fp8_block"}, SAME)
    cutlass = {"moe_torch_flow_cutlass"}
    assert found("mixtral-8x7b", "fp8") == (cutlass, {"bfloat16", "nvfp4"}, OTHER_FORMATS)
    assert found("gpt-oss-120b", ONE_MODEL)[1:] == ({"nvfp4"}, OTHER_KERNELS)


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


@pytest.mark.parametrize("name", ["vllm", "sglang-h100"])
def test_first_tokens_with_their_queue_are_met_and_a_load_without_a_queue_is_not(name: str) -> None:
    served = first_tokens.table()
    points = first_tokens.points_of(1, name)
    found = points(served)
    assert failed(found) == []
    by = served.loads[name]
    outside = [point for point in found if point.name.startswith("outside")]
    assert 0.88 < 1 - len(outside) / len(served.of(name)) < 0.92  # the band is the 90th percentile
    assert all(abs(point.error_percent) > 100 * by.band for point in outside)
    wrong = replace(by, numbers=by.numbers | {"queue": 0.0})
    assert failed(points(replace(served, loads={name: wrong})))
    narrow = replace(by, band=by.band - 0.02)
    assert any("within" in one for one in failed(points(replace(served, loads={name: narrow}))))


def test_rows_are_predicted_by_numbers_that_have_not_seen_them() -> None:
    """Two folds: the times of the one are doubled, so each is predicted as if it were like the other."""
    served = first_tokens.table()
    some = [row for row in served.of("sglang-h100") if row.how.prompt == 1024][:6]
    folds = {row.id: i % 2 for i, row in enumerate(some)}
    asked = {row.id: {"host_ms": 1.0} for row in some}
    found = held_out(
        some, lambda row: folds[row.id], asked, lambda row: 1.0 + folds[row.id], {"host_ms": (0, 9)}
    )
    assert [round(found[row.id]) for row in some] == [100, -50] * 3
    assert band({str(i): float(i) for i in range(11)}) == 0.09


def test_every_row_of_the_file_is_in_one_load() -> None:
    served = first_tokens.table()
    assert sum(len(served.of(name)) for name in served.loads) == len(served.rows) == 953
    assert [len(served.of(name)) for name in served.loads] == [one.rows for one in served.loads.values()]


def test_the_wait_of_a_load_is_that_of_requests_that_come_at_once() -> None:
    """(batch - 1) / 2 prompts on average, by the event simulation of `lpu replay`."""
    spec, shape = gpu_spec("h100"), named("llama-3.1-8b")
    how, by = Serving(gpus=1, batch=9, prompt=512, outputs=4), loads()["vllm"]
    found = waits(spec, shape, how, by.serves)
    prompt = Prompt(compute=round(found["prompt"] * 1e9), exposed=0, handover=0, wire=0)
    prefill = Prefiller(replicas=1, cost=lambda *_: prompt, room=10**9, cache_blocks=0)
    pace = StepPace(1024, 1, 1, 1)
    machine = Served(clock_hz=10**9, groups=1, rows=9, paces=(pace,), prefill=prefill)
    zeros = np.zeros(9, np.int64)
    requests = Trace(name="at once", arrivals=zeros, inputs=zeros + 512, outputs=zeros + 4)
    assert simulate(requests, machine).queue.mean() == pytest.approx(found["queue"], rel=1e-6)
