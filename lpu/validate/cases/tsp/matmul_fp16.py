"""Case 7: how busy the multipliers of one chip are in [2304 x 4096] x [4096 x N] at FP16."""

from compiler.program.isa import F32_LANES, ceil_div
from fabric.rack import Rack
from lpu.validate.cases.point import Kind, PublishedPoint
from lpu.validate.cases.tsp.gemm import Gemm, PlaneSplit, ideal_cycles, plane_chip, scheduled_cycles
from lpu.validate.cases.tsp.machine import PublishedMachine

CASE = 7
ROWS, INNER = 2304, 4096
FEWEST, MOST = 1376, 3500  # columns
LEAST_PERCENT = 80
SHOWN = (FEWEST, 2304, MOST)


def points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """Utilisation at a few widths and at the worst of all, and the worst of the split that programs use."""
    rack = machine.node()
    pairs = plane_chip(rack.chip, 2).planes
    every = utilisations(rack, pairs)
    worst = _worst(every)
    columns_split = utilisations(rack, 1)
    other = _worst(columns_split)
    names = {columns: f"N = {columns}" for columns in sorted({*SHOWN, worst})}
    names[worst] += ", the worst of all"
    return (
        *(_point(name, "check", every[columns]) for columns, name in names.items()),
        _point(f"N = {other}, split as programs are", "shown", columns_split[other]),
    )


def utilisations(rack: Rack, row_parts: int) -> dict[int, float]:
    """Ideal cycles / scheduled cycles, by N.

    As many pairs of planes as `row_parts` take an equal share of the rows each and stream it, whole, past the
    tiles of weights. Schedules differ only where the number of 80-column lines does.
    """
    cycles: dict[int, int] = {}
    out: dict[int, float] = {}
    split = PlaneSplit(row_parts=row_parts, chunks=1)
    for columns in range(FEWEST, MOST + 1):
        gemm = Gemm(rows=ROWS, inner=INNER, columns=columns, bytes_per_weight=2)
        lines = int(ceil_div(columns, F32_LANES))
        if lines not in cycles:
            cycles[lines] = scheduled_cycles(gemm, split, rack)
        out[columns] = ideal_cycles(gemm, rack.chip) / cycles[lines]
    return out


def _worst(by_columns: dict[int, float]) -> int:
    return min(by_columns, key=lambda columns: (by_columns[columns], columns))


def _point(name: str, kind: Kind, share: int | float) -> PublishedPoint:
    return PublishedPoint(
        case=CASE,
        name=name,
        kind=kind,
        unit="% busy",
        published=LEAST_PERCENT,
        modelled=100 * share,
        tolerance_percent=0 if kind == "check" else None,
        at_least=True,
    )
