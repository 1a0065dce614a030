"""Link: every read resolved to the write that its address and cycle name; the dataflow of the schedule.

Tags and the compiler's graph play no part here. A read takes the last write to its words that was committed
at or before its cycle; transfers become aliases; products on an accumulator belong to the next write-back
that drains it; weights are what was preloaded at the address. What finds nothing, or another kind of thing,
is a `LinkError`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from compiler.program.isa import Columns, Kernel, Op, is_transfer
from compiler.program.manifest import Manifest
from compiler.program.program import Loads
from compiler.program.ranges import first_of, ramp
from lpu.link.error import LinkError as LinkError
from lpu.link.error import fail
from lpu.link.host_lanes import check_host
from lpu.link.kinds import check_kinds, check_outputs
from lpu.link.lines import Resolved, by_kernel, read_spans, resolve, write_spans
from lpu.link.state import chains, regions, states, weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataflow:
    """What computes what from what, row by row.

    lines: every transient line written, and per operand the one that each line read comes from.
    result: index of each row's first written line.
    load, loads: first preloaded value of each row (an index into `load_order`) and how many.
    drain: write-back of each MM row, else -1.
    region: KV region of each row, else -1; append: the KVW row of each region; region_at: its chip and word.
    state: first of the states that each row renews, one a line, else -1; states: of each chip, word, how many
    values of a channel it keeps, of how many sequences, its row.
    level: longest path from the inputs, one for an MM and its write-back; -1 for transfers.
    logits, logits_at: written line and padded vocabulary line of each logits line; token: a written line, or
    -1 for a hop: its TAKE and GIVE rows name in src3 the lines of its message and of its answer.
    """

    columns: Columns
    kernels: tuple[Kernel, ...]
    batch: int
    lines: Resolved
    result: Int[np.ndarray, " rows"]
    load_order: Int[np.ndarray, " loads"]
    load: Int[np.ndarray, " rows"]
    loads: Int[np.ndarray, " rows"]
    drain: Int[np.ndarray, " rows"]
    region: Int[np.ndarray, " rows"]
    append: Int[np.ndarray, " regions"]
    region_at: Int[np.ndarray, "regions 2"]
    state: Int[np.ndarray, " rows"]
    states: Int[np.ndarray, "states 5"]
    level: Int[np.ndarray, " rows"]
    logits: Int[np.ndarray, " logits"]
    logits_at: Int[np.ndarray, " logits"]
    token: int
    vocab: int

    @property
    def levels(self) -> int:
        """Length of the longest chain of dependent rows."""
        return int(self.level.max(initial=-1)) + 1


def link(manifest: Manifest, loads: Loads, columns: Columns) -> Dataflow:
    """The dataflow of one step's rows; raises LinkError where the schedule does not imply one."""
    batch = manifest.rows
    parts = by_kernel(columns, manifest.kernels)
    reads, writes = read_spans(columns, parts, batch), write_spans(columns, parts, batch)
    lines, outputs = resolve(columns, reads, writes, manifest)
    check_kinds(columns, reads, lines)
    if manifest.token is not None:
        check_outputs(columns, lines, outputs)
    check_host(columns, manifest)
    order, load, count = weights(columns, parts, loads)
    region, append, region_at = regions(columns, parts)
    copies = np.flatnonzero(np.isin(columns.op, (Op.QKF, Op.PVF)))
    region[copies] = region[lines.row[lines.found[1][lines.first[1][copies]]]]
    tiles = np.flatnonzero(columns.op == Op.XMF)
    fetches = lines.row[lines.found[1][lines.first[1][tiles]]]
    load[tiles], count[tiles] = load[fetches], count[fetches]  # of the stack that its copy was fetched of
    lines.found[1][lines.first[1][tiles]] = lines.found[0][lines.first[0][fetches]]  # and of its slot
    state, every = states(columns, parts)
    drain = chains(columns, parts, manifest)
    return Dataflow(
        columns=columns,
        kernels=manifest.kernels,
        batch=batch,
        lines=lines,
        result=writes.first[:-1],
        load_order=order,
        load=load,
        loads=count,
        drain=drain,
        region=region,
        append=append,
        region_at=region_at,
        state=state,
        states=every,
        level=_levels(columns, lines, drain, region, append),
        logits=outputs[: len(manifest.logits)],
        logits_at=np.array([entry.line for entry in manifest.logits], np.int64),
        token=int(outputs[-1]) if manifest.token is not None else -1,
        vocab=manifest.vocab,
    )


def _edges(
    columns: Columns,
    lines: Resolved,
    drain: Int[np.ndarray, " rows"],
    region: Int[np.ndarray, " rows"],
    append: Int[np.ndarray, " regions"],
) -> tuple[Int[np.ndarray, " edges"], Int[np.ndarray, " edges"]]:
    """(earlier, later) rows; an MM counts as its write-back, runs of equal edges as one."""
    node = np.where(drain >= 0, drain, np.arange(len(columns)))
    before: list[Int[np.ndarray, " edges"]] = []
    after: list[Int[np.ndarray, " edges"]] = []
    computes = ~is_transfer(columns.op)
    for first, found in zip(lines.first, lines.found, strict=True):
        reader = np.repeat(np.arange(len(columns)), np.diff(first))
        source = lines.row[found]
        keep = computes[reader]
        keep[1:] &= (source[1:] != source[:-1]) | (reader[1:] != reader[:-1])
        before.append(node[source[keep]])
        after.append(node[reader[keep]])
    readers = np.flatnonzero((region >= 0) & (columns.op != Op.KVW))
    before.append(append[region[readers]])
    after.append(readers)
    return np.concatenate(before), np.concatenate(after)


def _levels(
    columns: Columns,
    lines: Resolved,
    drain: Int[np.ndarray, " rows"],
    region: Int[np.ndarray, " rows"],
    append: Int[np.ndarray, " regions"],
) -> Int[np.ndarray, " rows"]:
    """Longest path of each row, by peeling off the rows whose sources are all done."""
    before, after = _edges(columns, lines, drain, region, append)
    order = np.argsort(before, kind="stable")
    before, after = before[order], after[order]
    size = len(columns)
    first = np.searchsorted(before, np.arange(size + 1))
    waiting = np.bincount(after, minlength=size)
    level = np.full(size, -1, np.int64)
    alone = ~is_transfer(columns.op) & (drain < 0)
    ready = np.flatnonzero(alone & (waiting == 0))
    now, done = 0, 0
    while len(ready):
        level[ready] = now
        done += len(ready)
        degree = first[ready + 1] - first[ready]
        reached = after[np.repeat(first[ready], degree) + ramp(degree)]
        np.subtract.at(waiting, reached, 1)
        reached = reached[waiting[reached] == 0]
        ready = np.unique(reached)
        now += 1
    if done < np.count_nonzero(alone):
        fail(columns, first_of(alone & (level < 0)), "waits for its own result")
    products = np.flatnonzero(drain >= 0)
    level[products] = level[drain[products]]
    return level
