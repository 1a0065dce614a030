"""The shards of a model: what each kind of block asks of chips, read from its real schedule on one group."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compiler.analyse.dataflow import edges, waits
from compiler.errors import CapacityError
from compiler.lower.block import Plan
from compiler.lower.blocks import ModelBlock, input_lines
from compiler.lower.context import Group
from compiler.place.exchange import exchange
from compiler.place.problem import Need, Shards
from compiler.place.sizes import block_sizes, k_parts
from compiler.program.isa import Columns, Kernel, Op, ceil_div
from compiler.program.packed import by_kind
from compiler.route.route import Router
from compiler.schedule.template import Template, template
from compiler.timing import timing
from fabric.rack import Rack


def shards_of(plan: Plan, blocks: tuple[ModelBlock, ...], rack: Rack, tp: int, layout: str) -> Shards:
    """The blocks of a model in `tp` shards each; raises CapacityError for a block that needs more chips."""
    plan = replace(plan, narrow=False)
    groups = tuple(tuple(range(g * tp, (g + 1) * tp)) for g in range(rack.chips // tp))
    sizes, room = block_sizes(plan, blocks, rack, groups, layout, 1)
    for size in sizes:
        if size.span > 1 or int(size.words.max()) > room.words:
            raise CapacityError(
                "place",
                f"block {size.name}",
                f"needs {size.span} groups of {tp} chips, a placement gives every block one",
                f"Raise --tp above {tp}.",
            )
    names = list(dict.fromkeys(block.kind for block in blocks))
    first = [next(i for i, block in enumerate(blocks) if block.kind == name) for name in names]
    known: dict[tuple[int, int], Need] = {}

    def need(kind: int, ranks: int) -> Need:
        if (kind, ranks) not in known:
            reader = blocks[(first[kind] + 1) % len(blocks)]
            known[kind, ranks] = _measured(plan, blocks[first[kind]], reader, rack, ranks, layout)
        return known[kind, ranks]

    return Shards(
        names=tuple(block.name for block in blocks),
        kinds=tuple(names.index(block.kind) for block in blocks),
        before=((), *((i,) for i in range(len(blocks) - 1))),
        tp=tp,
        room=room.words,
        need=need,
        ring=True,
    )


def _measured(plan: Plan, block: ModelBlock, reader: ModelBlock, rack: Rack, ranks: int, layout: str) -> Need:
    """A block of the kind scheduled on the first `ranks` chips, its result going to the same chips."""
    chips, parts = tuple(range(ranks)), k_parts(layout, ranks)
    group = Group(
        ranks=ranks,
        k_parts=parts,
        targets=chips,
        wanted=input_lines(plan.demands, reader, ranks, parts),
    )
    context = max(plan.contexts)
    made = template(replace(plan, contexts=(context,)), block, group, Router(rack, chips), 0)
    columns, cycles, batch = made.columns[context], made.cycles[context], plan.graph.batch
    token = block.result == plan.graph.token.value
    handed = batch if token else int(ceil_div(group.wanted.shape[1], ranks)) * batch
    sources = 1 if token else ranks
    trips = _trips(columns, made.kernels, plan.chip.planes) if ranks > 1 else 0
    rounds = max(trips - 1, 0)
    sent = _sent(columns, batch) - handed * sources * (ranks - 1)
    each = max(-(-sent // max(ranks * (ranks - 1) * rounds, 1)), 0) if rounds else 0
    apart = exchange(rack, chips[:sources], chips, handed).cycles
    apart += rounds * exchange(rack, chips, chips, each).cycles
    return Need(
        words=tuple((made.weight_words + made.kv_words).tolist()),
        work=max(cycles - apart, 1),
        busy=_busy(columns, plan, made, batch),
        rounds=rounds,
        sent=each,
        handed=handed,
        sources=sources,
    )


def _sent(columns: Columns, batch: int) -> int:
    """Words that reach another chip of the group, however many links they cross."""
    return int(columns.n[columns.op == Op.SEND].sum() + columns.n[columns.op == Op.FORWARD].sum()) * batch


def _trips(columns: Columns, kernels: Sequence[Kernel], planes: int) -> int:
    """How often the longest chain of rows goes from one chip to another (forwarding counts with its send)."""
    pairs = edges(columns, kernels, planes, 0)
    chain = waits(columns, pairs)
    latency = columns.t1 - columns.t0
    row = int(np.argmax(np.where(chain.tail == 0, chain.head + latency, -1)))
    count = 0
    while True:
        count += int(columns.op[row]) == Op.SEND
        before = pairs[pairs[:, 1] == row, 0]
        ends = chain.head[before] + latency[before]
        if not len(before) or ends.max() < chain.head[row]:
            return count
        row = int(before[np.argmax(ends)])


def _busy(columns: Columns, plan: Plan, made: Template, batch: int) -> int:
    """Cycles that the busiest class of units of one chip is held, its units sharing evenly."""
    hold = np.zeros(len(columns), np.int64)
    compute = columns.peer < 0
    mine = np.flatnonzero(compute)
    for op, aux, some in by_kind(columns.op[mine], columns.aux[mine]):
        hold[mine[some]] = timing(op, columns.n[mine[some]], made.kernels[aux], plan.chip, batch)[0]
    planes = plan.chip.planes
    cls = np.minimum(columns.unit // planes, 2)
    most = 0
    for kind, units in enumerate((planes, planes, plan.chip.vxm_chains)):
        mine = compute & (cls == kind)
        held = np.bincount(columns.chip[mine], hold[mine], len(made.router.chips))
        most = max(most, -(-int(held.max()) // units))
    return most
