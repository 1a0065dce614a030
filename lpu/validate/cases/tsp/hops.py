"""Case 5: link and hop latency. An input of the model, so the agreement of a hop is by construction."""

import numpy as np

from compiler.lower.rows import Kernels, RowBuilder, tag
from compiler.program.isa import Op
from compiler.route.route import Router
from compiler.schedule.list_schedule import schedule
from fabric.catalog import rack_spec
from fabric.rack import Rack
from fabric.topology import RackSpec
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.tsp.machine import PublishedMachine

CASE = 5
HOP_NS, LATER_HOP_NS, WIRE_CYCLES = 300, 350, 216
LADDER_NS = {8: 350, 64: 750, 128: 1150, 384: 1600, 640: 2050, 896: 2500, 1152: 2950}
"""By GB of SRAM in reach. Source: Hot Chips 38, facts hardware_2026_11.md 1.1 (12); four are fitted."""

ROW = "lpx-x4"
RACK_GB = 128
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
        *ladder(rack_spec(ROW)),
    )


def ladder(spec: RackSpec) -> tuple[PublishedPoint, ...]:
    """Reach in SRAM against latency: hops within a rack, then a step for each pair of racks on both sides."""
    tray, _, row = spec.levels
    further = spec.forward_ns + tray.hop_ns
    step = spec.forward_ns + row.hop_ns
    out: list[PublishedPoint] = []
    for i, (reach, published) in enumerate(LADDER_NS.items()):
        pairs = max(reach // RACK_GB - 1, 0) // 2
        out.append(
            PublishedPoint(
                case=CASE,
                name=f"{reach} GB in reach",
                kind="fit" if i < 4 else "anchor",
                unit="ns",
                published=published,
                modelled=tray.hop_ns + min(i, 2) * further + pairs * step,
                tolerance_percent=0,
            )
        )
    return tuple(out)


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
