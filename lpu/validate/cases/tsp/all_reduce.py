"""Case 4: a small all-reduce on the eight chips of a node, in three phases, scheduled cycle by cycle."""

from compiler.lower.rows import Kernels, RowBuilder, tag
from compiler.program.instructions.vector import AddKernel
from compiler.program.isa import Op
from compiler.route.route import Router
from compiler.schedule.list_schedule import schedule
from fabric.rack import Rack
from lpu.validate.cases.point import PublishedPoint
from lpu.validate.cases.tsp.constants import ALL_REDUCE_SOFTWARE_NS
from lpu.validate.cases.tsp.machine import PublishedMachine

CASE = 4
TOTAL_US, PHASE_NS = 2.1, 722
TOLERANCE = 4.0  # percent: the published 2.1 us and 3 x 722 ns = 2.17 us are themselves 3 % apart
PHASES = 3  # 2 ** 3 = 8 chips


def points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """With the fitted time per phase, and without it."""
    clock = machine.chip.clock_hz
    fitted = all_reduce_cycles(machine.node(ALL_REDUCE_SOFTWARE_NS)) * 1e9 / clock
    bare = all_reduce_cycles(machine.node()) * 1e9 / clock
    return (
        _point("one of its three phases", "ns", PHASE_NS, fitted / PHASES),
        _point("all-reduce of a vector, 8 chips", "us", TOTAL_US, fitted / 1e3),
        PublishedPoint(
            case=CASE,
            name="the same with nothing fitted",
            kind="shown",
            unit="us",
            published=TOTAL_US,
            modelled=bare / 1e3,
            tolerance_percent=None,
        ),
    )


def all_reduce_cycles(rack: Rack, chips: int = 8) -> int:
    """Cycles until all of `chips` (a power of two) hold the sum of a vector of 320 bytes that each holds.

    Recursive doubling: in phase p each chip sends its sum to the chip that differs in bit p, and adds.
    """
    build, kernels = RowBuilder(), Kernels()
    adds = kernels.index(AddKernel())
    for phase in range(chips.bit_length() - 1):
        mine, came, total = 2 * phase, 2 * phase + 1, 2 * phase + 2  # value 0 is there at the start
        for chip in range(chips):
            build.add(
                Op.SEND, rank=chip, peer=chip ^ 1 << phase, n=1, src_tag=tag(mine, 0), dst_tag=tag(came, 0)
            )
        for chip in range(chips):
            build.add(
                Op.ADD,
                rank=chip,
                n=1,
                aux=adds,
                src_tag=tag(mine, 0),
                src2_tag=tag(came, 0),
                dst_tag=tag(total, 0),
            )
    return schedule(build.build(), kernels, Router(rack, tuple(range(chips))), rack.chip, 1).cycles


def _point(name: str, unit: str, published: int | float, modelled: int | float) -> PublishedPoint:
    return PublishedPoint(
        case=CASE,
        name=name,
        kind="fit",
        unit=unit,
        published=published,
        modelled=modelled,
        tolerance_percent=TOLERANCE,
    )
