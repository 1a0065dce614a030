"""Validation: the registry of suites and cases, and the result of running them.

A case is a file of `lpu/validate/cases/` with a function `points(machine)`, and one line in `CASES`; a suite
is a set of cases for one machine, and one line in `SUITES`. No published figure outside the cases
was used for any constant of the LPU; others are kept aside. docs/validation.md (suite lpu),
docs/gpu.md (gpu) and docs/afd-timing.md (afd) say what each case tests and what it does not.
"""

from dataclasses import dataclass
from typing import Any

from fabric.chip import Sourced
from lpu.inputs.document import FileError
from lpu.report.words import by_confidence
from lpu.screen import OnScreen
from lpu.validate.cases.afd import anchors
from lpu.validate.cases.fitted import Fitted
from lpu.validate.cases.gpu import experts, first_tokens, operators, steps
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.suite import Case, Suite
from lpu.validate.cases.tsp import (
    all_reduce,
    constants,
    encoder,
    hops,
    host_calls,
    matmul_fp16,
    resnet50_cycles,
    saturation,
    served,
    topology_units,
)
from lpu.validate.cases.tsp.machine import PublishedMachine, catalog_machine

CASES = (
    Case(
        number=resnet50_cycles.CASE,
        title="ResNet-50 batch 1, INT8, one GroqChip1",
        points=resnet50_cycles.points,
        remark="its overhead was fitted to it: agreement proves nothing; unfitted is the model",
    ),
    Case(
        number=all_reduce.CASE,
        title="small all-reduce on 8 chips",
        points=all_reduce.points,
        remark="the software time per phase was fitted to 722 ns; the sum of three is held against 2.1 us",
    ),
    Case(
        number=hops.CASE,
        title="link and hop latency",
        points=hops.points,
        remark="hops are inputs: error 0 by construction, but for rounding up to whole cycles; a scheduled "
        "vector takes its slot of the link besides",
    ),
    Case(
        number=topology_units.CASE,
        title="bandwidths and diameters of racks",
        points=topology_units.points,
        remark="one link rate, fitted to 427 GB/s; the port rule was chosen for diameter 5; the rest follows",
    ),
    Case(
        number=matmul_fp16.CASE,
        title="matmul [2304x4096] x [4096xN], FP16, one GroqChip1",
        points=matmul_fp16.points,
        remark="nothing fitted; weights stay, activations stream, every N is scheduled; planes share the "
        "rows, where compiled programs share the columns, which is worse",
    ),
    Case(
        number=saturation.CASE,
        title="all-reduce over 64 chips until its links are full",
        points=saturation.points,
        remark="no published curve is in hand: it is held against its wires alone, by a limit set after "
        "seeing it; unlike case 4 nothing is fitted and no software is counted",
    ),
    Case(
        number=encoder.CASE,
        title="BERT-base batch 1, compiled programs on one and four GroqChip1",
        points=encoder.points,
        remark="nothing fitted; the published figure says neither tokens nor chips nor bits, so only a limit "
        "that was set after seeing it has a verdict",
    ),
    Case(
        number=host_calls.CASE,
        title="host model of the GroqCard",
        points=host_calls.points,
        remark="a formula, held against its results by hand",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Validation(OnScreen):
    """The points of the cases that ran. inputs: names of numbers that were not fitted, by confidence.

    figure: kind of the figures that the model is compared with, `published` or `measured`.
    """

    suite: str
    figure: str
    cases: tuple[Case, ...]
    points: tuple[PublishedPoint, ...]
    fitted: tuple[Fitted, ...]
    inputs: dict[str, list[str]]

    @property
    def passed(self) -> bool:
        """Whether no point is beyond its tolerance."""
        return all(point.passed is not False for point in self.points)

    @property
    def verdict(self) -> str:
        """Number of points within their tolerance, by kind."""
        kinds = {
            kind: [p for p in self.points if p.kind == kind and p.passed is not None]
            for kind in ("fit", "anchor", "check", "gate")
        }
        parts = [
            f"{sum(p.passed is True for p in own)} of {len(own)} {kind}" for kind, own in kinds.items() if own
        ]
        return f"{'within' if self.passed else 'BEYOND'} tolerance: {', '.join(parts)}"

    def __str__(self) -> str:
        wrong = [f"beyond      {one.name}" for one in self.points if one.passed is False]
        return "\n".join(
            [f"verdict     {self.verdict}", *wrong, *(f"case {c.number}      {c.title}" for c in self.cases)]
        )

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "suite": self.suite,
            "passed": self.passed,
            "kinds": {"published": self.figure, "modelled": "modelled"},
            "cases": [
                {"case": case.number, "title": case.title, "remark": case.remark} for case in self.cases
            ],
            "points": [point.to_json() for point in self.points],
            "constants": {"fitted": [one.to_json() for one in self.fitted], **self.inputs},
        }


def validate(number: int | str | None = None, machine: Any = None, suite: str = "lpu") -> Validation:
    """Run all cases of a suite, or the one of that number, on `machine` (the catalog's). Raises FileError."""
    if suite not in SUITES:
        raise FileError(f"validate: there is no suite {suite!r}. Choose one of {', '.join(SUITES)}.")
    chosen = SUITES[suite]
    cases = tuple(case for case in chosen.cases if number is None or str(number) == str(case.number))
    if not cases:
        known = ", ".join(str(case.number) for case in chosen.cases)
        raise FileError(f"validate: --case {number}: there is no such case. Choose one of {known}.")
    machine = machine or chosen.machine()
    return Validation(
        suite=suite,
        figure=chosen.figure,
        cases=cases,
        points=tuple(point for case in cases for point in case.points(machine)),
        fitted=chosen.fitted(machine),
        inputs=by_confidence(chosen.sources(machine)),
    )


def _sources(machine: PublishedMachine) -> list[Sourced]:
    """Sources of the numbers of chip and rack, without the fitted ones."""
    return [
        source
        for source in machine.chip.sources + machine.spec.sources
        if source.field != "slot_cycles" and not source.field.endswith(".hop_ns")
    ]


SUITES = {
    "lpu": Suite(cases=CASES, machine=lambda: catalog_machine(), sources=_sources, fitted=constants.fitted),
    "gpu": operators.SUITE,
    "experts": experts.SUITE,
    "steps": steps.SUITE,
    "ttft": first_tokens.SUITE,
    "served": served.SUITE,
    "afd": anchors.SUITE,
}
"""By name: what `lpu validate` runs without a flag (lpu), and with the flag of that name."""
