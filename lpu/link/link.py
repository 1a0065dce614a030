"""Link: every read resolved to the write that its address and cycle name; the dataflow of the schedule.

Tags and the compiler's graph play no part here. A read takes the last write to its words that was committed
at or before its cycle; transfers become aliases; products on an accumulator belong to the next write-back
that drains it; weights are what was preloaded at the address. What finds nothing, or another kind of thing,
is a `LinkError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.program.isa import Columns, Op
from compiler.program.program import Loads
from lpu.link.error import LinkError as LinkError
from lpu.link.error import fail, first_of, ramp
from lpu.link.host_lanes import check_host
from lpu.link.kinds import check_kinds, check_outputs
from lpu.link.lines import Lines, classes, read_spans, resolve, write_spans
from lpu.link.state import chains, regions, weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataflow:
    """What computes what from what, row by row.

    lines: every transient line written, and per operand the one that each line read comes from.
    result: index of each row's first written line.
    load, loads: first preloaded value of each row (an index into `load_order`) and how many.
    drain: write-back of each MM row, else -1.
    region: KV region of each row, else -1; append: the KVW row of each region; region_at: its chip and word.
    level: longest path from the inputs, one for an MM and its write-back; -1 for transfers.
    logits, logits_at: written line and padded vocabulary line of each logits line; token: a written line, or
    -1 for a hop: its TAKE and GIVE rows name in src3 the lines of its message and of its answer.
    """

    columns: Columns
    kernels: tuple[Mapping[str, Any], ...]
    batch: int
    lines: Lines
    result: np.ndarray
    load_order: np.ndarray
    load: np.ndarray
    loads: np.ndarray
    drain: np.ndarray
    region: np.ndarray
    append: np.ndarray
    region_at: np.ndarray
    level: np.ndarray
    logits: np.ndarray
    logits_at: np.ndarray
    token: int
    vocab: int

    @property
    def levels(self) -> int:
        """Length of the longest chain of dependent rows."""
        return int(self.level.max(initial=-1)) + 1


def link(manifest: Manifest, loads: Loads, columns: Columns) -> Dataflow:
    """The dataflow of one step's rows; raises LinkError where the schedule does not imply one."""
    batch, kernels = manifest.rows, list(manifest.kernels)
    parts = classes(columns, kernels)
    reads, writes = read_spans(columns, parts, batch), write_spans(columns, parts, batch)
    lines, outputs = resolve(columns, reads, writes, manifest)
    check_kinds(columns, reads, lines)
    if manifest.token:
        check_outputs(columns, lines, outputs)
    check_host(columns, manifest)
    order, load, count = weights(columns, parts, loads)
    region, append, region_at = regions(columns, parts)
    drain = chains(columns, parts, manifest)
    return Dataflow(
        columns=columns,
        kernels=tuple(kernels),
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
        level=_levels(columns, lines, drain, region, append),
        logits=outputs[: len(manifest.logits)],
        logits_at=np.array([entry[2] for entry in manifest.logits], np.int64),
        token=int(outputs[-1]) if manifest.token else -1,
        vocab=manifest.vocab,
    )


def _edges(
    columns: Columns, lines: Lines, drain: np.ndarray, region: np.ndarray, append: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(earlier, later) rows; an MM counts as its write-back, runs of equal edges as one."""
    node = np.where(drain >= 0, drain, np.arange(len(columns)))
    before: list[np.ndarray] = []
    after: list[np.ndarray] = []
    for first, found in zip(lines.first, lines.found, strict=True):
        reader = np.repeat(np.arange(len(columns)), np.diff(first))
        source = lines.row[found]
        keep = columns.op[reader] > Op.FORWARD
        keep[1:] &= (source[1:] != source[:-1]) | (reader[1:] != reader[:-1])
        before.append(node[source[keep]])
        after.append(node[reader[keep]])
    readers = np.flatnonzero((region >= 0) & (columns.op != Op.KVW))
    before.append(append[region[readers]])
    after.append(readers)
    return np.concatenate(before), np.concatenate(after)


def _levels(
    columns: Columns, lines: Lines, drain: np.ndarray, region: np.ndarray, append: np.ndarray
) -> np.ndarray:
    """Longest path of each row, by peeling off the rows whose sources are all done."""
    before, after = _edges(columns, lines, drain, region, append)
    order = np.argsort(before, kind="stable")
    before, after = before[order], after[order]
    size = len(columns)
    first = np.searchsorted(before, np.arange(size + 1))
    waiting = np.bincount(after, minlength=size)
    level = np.full(size, -1, np.int64)
    alone = (columns.op > Op.FORWARD) & (drain < 0)
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
