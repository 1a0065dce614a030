"""Every row with a verdict can fail: some wrong constant takes it beyond its tolerance."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from fabric.catalog import gpu_spec, rack_spec
from fabric.gpu import GpuSpec
from fabric.host import HostLink
from lpu.gpu.served.shape import StepShape
from lpu.gpu.served.step import Serving
from lpu.validate.cases.afd import step3
from lpu.validate.cases.gpu import operators, steps
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.tsp import hops, host_calls, saturation, served, served_model
from lpu.validate.cases.tsp.machine import catalog_machine
from lpu.validate.validate import SUITES, validate

MACHINE = catalog_machine()
Wrong = Callable[[pytest.MonkeyPatch], Iterable[PublishedPoint]]


def named(point: PublishedPoint) -> str:
    """Its name without what was counted."""
    return point.name.split(":")[0]


def chip(case: int, **numbers: int | float) -> Wrong:
    machine = replace(MACHINE, chip=MACHINE.chip.with_numbers("a test", **numbers))
    return lambda _: validate(case, machine).points


def levels(case: int, first: dict[str, Any], second: dict[str, Any] | None = None) -> Wrong:
    node, ring = MACHINE.spec.levels
    changed = replace(node, **first), replace(ring, **(first if second is None else second))
    return lambda _: validate(case, replace(MACHINE, spec=replace(MACHINE.spec, levels=changed))).points


def later(ns: int) -> Wrong:
    from fabric.rack import build_rack

    spec = MACHINE.later.spec
    changed = replace(spec, levels=tuple(replace(level, hop_ns=ns) for level in spec.levels))
    machine = replace(MACHINE, later=build_rack(changed, MACHINE.later.chip))
    return lambda _: validate(5, machine).points


def ladder(_: pytest.MonkeyPatch) -> Iterable[PublishedPoint]:
    spec = rack_spec(hops.ROW)
    tray, *others = spec.levels
    return hops.ladder(replace(spec, levels=(replace(tray, hop_ns=360), *others)))


def host(patch: pytest.MonkeyPatch) -> Iterable[PublishedPoint]:
    slow = HostLink(bytes_per_second=12_000_000_000, latency_ns=20_000)
    patch.setattr(host_calls, "host_call", partial(host_calls.host_call, link=slow))
    return validate(11).points


def served_with(name: str, value: Any, where: Any = served) -> Wrong:
    def points(patch: pytest.MonkeyPatch) -> Iterable[PublishedPoint]:
        patch.setattr(where, name, value)
        return served.llm_points(MACHINE)

    return points


def slow_installs(_: pytest.MonkeyPatch) -> Iterable[PublishedPoint]:
    half = replace(MACHINE, chip=MACHINE.chip.with_numbers("a test", weight_install_frac=0.09))
    return served.caution_points(half)


def gpu(**numbers: float) -> Wrong:
    bench = operators.catalog_bench()
    wrong = replace(bench, spec=gpu_spec("h200").with_numbers("a test", **numbers))
    return lambda _: validate(machine=wrong, suite="gpu").points


def engines(_: pytest.MonkeyPatch) -> Iterable[PublishedPoint]:
    table = steps.table()
    wrong = {name: replace(one, numbers=one.numbers | {"products": 3.0, "step_ms": 9.0}) for name, one in
             table.engines.items()}  # fmt: skip
    return (p for case in SUITES["steps"].cases for p in case.points(replace(table, engines=wrong)))


def free_bodies(patch: pytest.MonkeyPatch) -> Iterable[PublishedPoint]:
    """GPUs a thousand times as fast: what rows left out are predicted from tells nothing of their work."""
    names = ("memory_bytes_per_second", "flops_bf16", "flops_fp8", "nvlink_bytes_per_second")
    bodies = steps.bodies

    def wrong(spec: GpuSpec, shape: StepShape, how: Serving) -> Mapping[str, float]:
        fast = {name: 1000 * getattr(spec, name) for name in names}
        return bodies(spec.with_numbers("a test", **fast), shape, how)

    patch.setattr(steps, "bodies", wrong)
    return validate(suite="steps").points


def step3_rate(patch: pytest.MonkeyPatch) -> Iterable[PublishedPoint]:
    patch.setattr(step3, "TOKENS", 128)
    return step3.rate_points()


def step3_device(patch: pytest.MonkeyPatch) -> Iterable[PublishedPoint]:
    patch.setattr(step3, "MICROSECONDS", Fraction(300))
    return step3.device_points()


WRONG: dict[str, tuple[Wrong, ...]] = {
    "lpu": (
        chip(1, mxm_fill_cycles=70),
        levels(4, {"hop_ns": 400}),
        levels(5, {"hop_ns": 310}),
        levels(5, {"hop_ns": 230}),
        later(400),
        ladder,
        chip(6, slot_cycles=28),
        levels(6, {}, {"ports": "mirror"}),
        levels(6, {}, {"kind": "line"}),
        chip(7, mxm_fill_cycles=8_000),
        chip(7, sram_bytes_per_cycle=200),
        levels(8, {"hop_ns": 20_000}),
        chip(9, clock_hz=500_000_000),
        chip(11, clock_hz=800_000_000),
        host,
    ),
    "served": (
        served_with("FP16_RATE", 1, served_model),
        served_with("PHASE_NS", 4000),
        served_with("HOST_US", (3000.0,)),
        slow_installs,
    ),
    "gpu": (gpu(memory_bytes_per_second=1.2e12), gpu(flops_bf16=2e14, flops_fp8=4e14)),
    "steps": (engines, free_bodies),
}
"""By suite. `experts`, `afd` and `reference` have theirs in their own files; step3 stands below."""


@pytest.mark.slow
@pytest.mark.parametrize("suite", WRONG)
def test_every_row_of_a_suite_fails_with_some_wrong_constant(
    suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {named(one) for one in validate(suite=suite).points if one.passed is not None}
    failed: set[str] = set()
    for wrong in WRONG[suite]:
        with monkeypatch.context() as patch:
            failed |= {named(one) for one in wrong(patch) if one.passed is False}
    left = rows - failed - ALWAYS.get(suite, set())
    assert not left, left


ALWAYS = {"lpu": {"no faster than its wires"}, "served": {"Llama-2-70B, 576 chips"}}
"""Rows that no constant of the machine can break: a schedule that passed its wires would be illegal, and the
first served row is what the share is fitted to in every corner. Each has a test of its own below."""


@pytest.mark.slow
def test_a_schedule_faster_than_its_wires_would_be_beyond_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(point.passed for point in saturation.points(MACHINE) if point.passed is not None)
    took = saturation.all_reduce_cycles
    monkeypatch.setattr(saturation, "all_reduce_cycles", lambda rack, words: took(rack, words) // 2)
    assert not {p.name: p for p in saturation.points(MACHINE)}["no faster than its wires"].passed


def test_the_fitted_served_row_fails_where_its_share_would_have_to_be_above_all() -> None:
    slow = replace(MACHINE, chip=MACHINE.chip.with_numbers("a test", weight_install_frac=0.01))
    first = served.llm_points(slow)[0]
    assert first.name == "Llama-2-70B, 576 chips"
    assert first.passed is False


@pytest.mark.parametrize("wrong", [step3_rate, step3_device])
def test_arithmetic_of_step3_fails_with_another_constant(
    wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [point for point in wrong(monkeypatch) if point.passed is not None]
    assert points
    assert not any(point.passed for point in points)
