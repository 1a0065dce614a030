"""Chunks of a prompt as waves: each follows the one before it through the groups of chips.

A chunk needs no token of the one before it, only its keys and values, which lie on the same chips. So it may
enter as soon as no chip has two chunks at a time: when the chip that one chunk needs longest is free again.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from compiler.lower.rows import FIELDS, Rows
from compiler.program.isa import Columns, ceil_div
from compiler.schedule.template import Template
from compiler.scheduled import Busiest, Scheduled, WaveSchedule
from compiler.throughput.interval import largest_load
from compiler.throughput.problem import Load, loads_of
from fabric.rack import Rack

FAR = 1 << 62
Spans = tuple[Int[np.ndarray, " ranks"], Int[np.ndarray, " ranks"]]


def follow(scheduled: Scheduled, rack: Rack) -> Scheduled:
    """The blocks of a chunk, and the interval at which chunks of one prompt may follow each other.

    Each chip has a chunk from the first line that comes until its last row ends, logits until the chunk ends.
    The interval is the longest of these times, so one copy of the transients is enough, and all of a chunk's
    reads of keys and values come before the next chunk's are appended.
    """
    contexts = scheduled.plan.contexts
    bases, cycles = _bases(scheduled)
    interval = {context: _longest(scheduled, rack, context, bases) for context in contexts}
    bounds = {context: _bound(scheduled, context) for context in contexts}
    waves = WaveSchedule(
        bases=bases,
        arenas=np.ones(rack.chips, np.int64),
        cycles=cycles,
        interval=interval,
        bound={context: bound for context, (bound, _) in bounds.items()},
        bound_of={context: what for context, (_, what) in bounds.items()},
    )
    return replace(scheduled, waves=waves)


def _bases(scheduled: Scheduled) -> tuple[list[dict[int, int]], dict[int, int]]:
    """The cycle at which each call begins, one after another, and that at which the last one ends."""
    cycle, bases = dict.fromkeys(scheduled.plan.contexts, 0), list[dict[int, int]]()
    for call in scheduled.calls:
        bases.append(dict(cycle))
        cycle = {c: at + scheduled.templates[call.template].cycles[c] for c, at in cycle.items()}
    return bases, cycle


def _longest(scheduled: Scheduled, rack: Rack, context: int, bases: list[dict[int, int]]) -> int:
    """Cycles of the chip that one chunk needs longest, from the first to the last."""
    first, last = np.full(rack.chips, FAR), np.full(rack.chips, -1)
    batch = scheduled.plan.graph.batch
    spans = [_spans(made, context, batch) for made in scheduled.templates]
    for call, base in zip(scheduled.calls, bases, strict=True):
        begins, ends = spans[call.template]
        chips = list(call.chips)
        np.minimum.at(first, chips, begins + base[context])
        np.maximum.at(last, chips, np.where(ends < 0, -1, ends + base[context]))
    return int((last - first + 1).max())


def _spans(made: Template, context: int, batch: int) -> Spans:
    """When each rank of a template has something to do first and last; what no rank has is (FAR, -1)."""
    rows, ranks = made.columns[context], len(made.router.chips)
    first, last = np.full(ranks, FAR), np.full(ranks, -1)
    sent = rows.peer >= 0
    hold = _link_holds(made, rows.take(np.flatnonzero(sent)), batch)
    ends = rows.t1.copy()
    ends[sent] = rows.t0[sent] + hold
    np.minimum.at(first, rows.chip, rows.t0)
    np.maximum.at(last, rows.chip, ends)
    np.minimum.at(first, rows.peer[sent], rows.t1[sent] - hold)
    np.maximum.at(last, rows.peer[sent], rows.t1[sent])
    for rank, _, _ in made.logits:  # the host reads them when the chunk ends
        last[rank] = made.cycles[context]
    return first, last


def _link_holds(made: Template, sent: Columns, batch: int) -> Int[np.ndarray, " rows"]:
    """Cycles that each transfer keeps its lanes."""
    pairs, which = np.unique(np.stack([sent.chip, sent.peer]), axis=1, return_inverse=True)
    slot = [made.router.link(rank, peer).slot_cycles for rank, peer in pairs.T.tolist()]
    return ceil_div(sent.n * batch, sent.aux) * np.array(slot, np.int64)[which.reshape(-1)]


def _bound(scheduled: Scheduled, context: int) -> tuple[int, Busiest]:
    """No interval of these rows on these chips is shorter, and whose work it is."""
    loads = [_loads(scheduled, made, context) for made in scheduled.templates]
    return largest_load((loads[call.template], call.chips) for call in scheduled.calls)


def _loads(scheduled: Scheduled, made: Template, context: int) -> tuple[Load, ...]:
    plan, rows = scheduled.plan, made.columns[context]
    return loads_of(_as_rows(rows), made.kernels, made.router, plan.chip, plan.graph.batch)


def _as_rows(columns: Columns) -> Rows:
    """Placed rows as if they were not."""
    fields = {name: getattr(columns, name) for name in FIELDS if hasattr(columns, name)}
    unset = np.full(len(columns), -1)
    return Rows(edges=np.zeros((0, 2), np.int64), **(fields | {"rank": columns.chip, "pin": unset}))
