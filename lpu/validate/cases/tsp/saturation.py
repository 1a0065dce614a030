"""Case 8: an all-reduce over 64 chips, from one vector a chip to a megabyte, until the links are full.

Sums inside each node first, as programs do over trays (`levels` of compiler/lower/collective.py): shards to
their owners in the node, then across nodes, and back in the same way, by the compiler's routes and schedule.
No figure of such a curve is in hand: what is held is that it never passes the wires and that it reaches them.
"""

from functools import cache

from compiler.lower.rows import Kernels, RowBuilder, tag
from compiler.program.instructions.vector import AddKernel
from compiler.program.isa import WORD_BYTES, Op
from compiler.route.route import Router
from compiler.schedule.list_schedule import schedule
from fabric.rack import Rack
from lpu.validate.cases.point import Kind, PublishedPoint
from lpu.validate.cases.tsp.machine import PublishedMachine

CASE = 8
NODES, CHIPS = 8, 64
SIZES = (1, 4, 16, 64)  # words of a shard: 64 of them are the tensor
REACHED = 55  # percent of what the wires allow at the largest size; set after seeing it


def points(machine: PublishedMachine) -> tuple[PublishedPoint, ...]:
    """The curve, its ceiling, and how near it comes."""
    rack, clock = machine.rack(NODES), machine.chip.clock_hz
    took = {words: all_reduce_cycles(rack, words) for words in SIZES}
    moved = 2 * (CHIPS - 1) / CHIPS * CHIPS * WORD_BYTES  # of each word of a shard, bytes over a chip's links
    rates = {words: moved * words * clock / cycles / 1e9 for words, cycles in took.items()}
    ceiling = moved * clock / least_cycles(rack) / 1e9
    largest = SIZES[-1]
    shown = tuple(
        _point(f"{CHIPS * words * WORD_BYTES / 1000:,.0f} kB on 64 chips", "shown", "GB/s", ceiling, rate)
        for words, rate in rates.items()
    )
    return (
        *shown,
        _point("no faster than its wires", "gate", "GB/s", ceiling, rates[largest]),
        _point("wires in use, largest", "check", "% of them", REACHED, 100 * rates[largest] / ceiling),
    )


def least_cycles(rack: Rack) -> float:
    """Cycles a word of a shard that the fullest wires take, those of a node or those between two nodes.

    In a node each chip sends each other one 8 words there and 8 back; between two nodes each of 8 chips sends
    a word of its shard and a word of the sum. Both kinds of wire can be busy at once.
    """
    node, ring = rack.spec.levels
    slot = rack.chip.slot_cycles
    inside = 2 * node.size * slot / node.lanes
    across = 2 * node.size * slot / (ring.links * ring.lanes)
    return max(inside, across)


@cache
def all_reduce_cycles(rack: Rack, words: int) -> int:
    """Cycles until each of 64 chips holds the sum of the 64 x `words` vectors that each holds."""
    build, kernels = RowBuilder(), Kernels()
    router, adds = Router(rack, tuple(range(CHIPS))), kernels.index(AddKernel())
    size, names = CHIPS // NODES, iter(range(1, 1 << 20))  # value 0 is what each chip holds at the start
    held: set[tuple[int, int, int]] = set()  # chip, value, line: what was passed on is not sent again
    came = [next(names) for _ in range(CHIPS)]  # by who sent it

    def send(source: int, targets: list[int], value: int, line: int, n: int, to: int = 0) -> None:
        for edge in router.tree(source, tuple(targets)):
            op = Op.SEND if edge.parent == source else Op.FORWARD
            read, kept = tag(value, line), tag(to or value, line)
            if (edge.child, to or value, line) in held:
                continue
            held.add((edge.child, to or value, line))
            build.add(
                op,
                rank=edge.parent,
                peer=edge.child,
                n=n,
                src_tag=read if op == Op.SEND else kept,
                dst_tag=kept,
            )

    def add(chip: int, parts: list[tuple[int, int]], n: int) -> int:
        """The value of a sum of (value, line), one after another."""
        total = parts[0]
        for part in parts[1:]:
            made = next(names)
            build.add(
                Op.ADD,
                rank=chip,
                n=n,
                aux=adds,
                src_tag=tag(*total),
                src2_tag=tag(*part),
                dst_tag=tag(made, 0),
            )
            total = made, 0
        return total[0]

    placed = [(chip, *divmod(chip, size)) for chip in range(CHIPS)]
    sums = [0] * CHIPS
    for chip, node, place in placed:
        for other in range(size):
            if other != place:
                send(chip, [node * size + other], 0, other * NODES * words, NODES * words, came[chip])
    for chip, node, place in placed:
        first = place * NODES * words
        others = [(came[node * size + k], first) for k in range(size) if k != place]
        sums[chip] = add(chip, [(0, first), *others], NODES * words)
    for chip, node, place in placed:
        for other in range(NODES):
            if other != node:
                send(chip, [other * size + place], sums[chip], other * words, words)
    done = [0] * CHIPS
    for chip, node, place in placed:
        done[chip] = add(chip, [(sums[k * size + place], node * words) for k in _from(node, NODES)], words)
    for chip, node, place in placed:
        send(chip, [k * size + place for k in range(NODES) if k != node], done[chip], 0, words)
    for chip, node, place in placed:
        for part in range(NODES):
            for other in range(size):
                if other != place:
                    send(chip, [node * size + other], done[part * size + place], 0, words)
    return schedule(build.build(), kernels, router, rack.chip, 1).cycles


def _from(first: int, count: int) -> list[int]:
    """`first`, then the others in order."""
    return [first, *(k for k in range(count) if k != first)]


def _point(name: str, kind: Kind, unit: str, published: int | float, modelled: int | float) -> PublishedPoint:
    return PublishedPoint(
        case=CASE,
        name=name,
        kind=kind,
        unit=unit,
        published=published,
        modelled=modelled,
        tolerance_percent=None if kind == "shown" else 0,
        at_least=kind == "check",
    )
