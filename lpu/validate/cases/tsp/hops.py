"""Case 5: link and hop latency. An input of the model, so the agreement of a hop is by construction."""

import numpy as np

from compiler.lower.rows import Kernels, RowBuilder, tag
from compiler.program.isa import Op
from compiler.route.route import Router
from compiler.schedule.list_schedule import schedule
from fabric.rack import Rack
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.tsp.machine import PublishedMachine

CASE = 5
HOP_NS, LATER_HOP_NS, WIRE_CYCLES = 300, 350, 216
TOLERANCE = 0.1  # percent: a hop is a whole number of cycles, so it is up to one cycle longer


def points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """The slowest hop of both racks; the wire inside it; one vector as the scheduler moves it."""
    rack = machine.rack(9)
    return (
        _hop(rack, HOP_NS, f"hop SRAM to SRAM, {machine.spec.name}"),
        _hop(machine.later, LATER_HOP_NS, f"hop SRAM to SRAM, {machine.later.name}"),
        PublishedPoint(
            case=CASE,
            name="a hop is no shorter than its wire",
            kind="check",
            unit="cycles",
            published=WIRE_CYCLES,
            modelled=int(rack.links.hop_cycles.min()),
            tolerance_percent=0,
            at_least=True,
        ),
        PublishedPoint(
            case=CASE,
            name="one vector over one link, as scheduled",
            kind="shown",
            unit="ns",
            published=HOP_NS,
            modelled=vector_cycles(machine.node()) * 1e9 / machine.chip.clock_hz,
            tolerance_percent=None,
        ),
    )


def vector_cycles(rack: Rack) -> int:
    """Cycles in which the scheduler moves one vector of 320 bytes from chip 0 to chip 1."""
    build, kernels = RowBuilder(), Kernels()
    build.add(Op.SEND, rank=0, peer=1, n=1, src_tag=tag(0, 0), dst_tag=tag(1, 0))
    return schedule(build.build(), kernels, Router(rack, (0, 1)), rack.chip, 1).cycles


def _hop(rack: Rack, published: int, name: str) -> PublishedPoint:
    cycles = rack.links.hop_cycles
    furthest = int(cycles[np.argmax(np.abs(cycles * 1e9 / rack.chip.clock_hz - published))])
    return PublishedPoint(
        case=CASE,
        name=name,
        kind="fit",
        unit="ns",
        published=published,
        modelled=furthest * 1e9 / rack.chip.clock_hz,
        tolerance_percent=TOLERANCE,
    )
