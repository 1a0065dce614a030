"""Case 1: ResNet-50, batch 1, INT8, on one chip: layer after layer, each scheduled tile by tile."""

from functools import cache

from fabric.rack import Rack
from lpu.validate.cases.point import Kind, PublishedPoint
from lpu.validate.cases.tsp.constants import INFERENCE_OVERHEAD_CYCLES
from lpu.validate.cases.tsp.gemm import Gemm, best_split
from lpu.validate.cases.tsp.machine import PublishedMachine
from lpu.validate.cases.tsp.resnet50 import layers

CASE = 1
CYCLES = 44_100
TOLERANCE = 0.5  # percent


def points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """With the fitted overhead of an inference, and without it; and with results that leave late."""
    bare = network_cycles(machine.node())
    full = bare + INFERENCE_OVERHEAD_CYCLES
    return (
        _point("ResNet-50 batch 1", "fit", full, TOLERANCE),
        _point("the same with nothing fitted", "shown", bare, None),
        _point("nor fitted, rows streamed whole", "shown", network_cycles(machine.node(), whole=True), None),
    )


def network_cycles(rack: Rack, whole: bool = False) -> int:
    """Cycles of all layers one after another, each by its fastest split; no overhead between them."""

    @cache
    def cycles(gemm: Gemm) -> int:
        return best_split(gemm, rack, whole)[1]

    return sum(cycles(gemm) for _, gemm in layers())


def _point(name: str, kind: Kind, modelled: int, tolerance: int | float | None) -> PublishedPoint:
    return PublishedPoint(
        case=CASE,
        name=name,
        kind=kind,
        unit="cycles",
        published=CYCLES,
        modelled=modelled,
        tolerance_percent=tolerance,
    )
