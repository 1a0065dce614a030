"""Cut: a linked dataflow in pieces, one per call of the program, and the lines that pass between them.

A call's rows lie together in the expanded program. What it reads is its own, or was written by an earlier
call (normally the residual); anything else cannot be streamed and is a `MachineError`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Int

from compiler.program.isa import COLUMNS, TAGS, Columns, Holds, Op, is_transfer
from compiler.program.program import Program
from compiler.program.ranges import ramp
from lpu.link.kinds import in_words
from lpu.link.lines import Resolved
from lpu.link.link import Dataflow
from lpu.run.error import MachineError
from lpu.run.pools import Pool

_POOL: dict[int, Pool] = {  # lines that are one pool row each
    Holds.F16: Pool.F16,
    Holds.F32: Pool.F32,
    Holds.STAT: Pool.F32,
    Holds.MOMENTS: Pool.F32,
    Holds.PEAK: Pool.F32,
    Holds.PICK: Pool.F32,
}
Span = tuple[int, int]
Of = Int[np.ndarray, " lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One call: its dataflow by itself, and how it hangs together with the others.

    first: its first row in the program. flow: rows, lines, regions and loads numbered from 0; after its own
    lines come those of `needs`. used: the loads of the program that its rows read, ascending; regions: its KV
    regions in the program. needs: lines of earlier calls that it reads. hands: its own lines (numbered from
    0) that later calls or the outputs read; hand_lines: the same in the program's numbers.
    """

    name: str
    first: int
    flow: Dataflow
    used: Int[np.ndarray, " used"]
    regions: Int[np.ndarray, " regions"]
    needs: Int[np.ndarray, " needs"]
    hands: Int[np.ndarray, " hands"]
    hand_lines: Int[np.ndarray, " hands"]

    def reindexed(self, loads: Int[np.ndarray, " loads"]) -> Dataflow:
        """The dataflow with its loads numbered as in `loads`, which holds all that it uses, ascending."""
        return replace(self.flow, load_order=np.searchsorted(loads, self.used)[self.flow.load_order])


def cut(program: Program, context: int, flow: Dataflow) -> Iterator[Piece]:
    """The pieces of the calls that have rows, in order, one at a time."""
    if len(flow.states):
        raise MachineError(
            f"run: the program keeps {len(flow.states)} lines of states, which "
            "are not streamed. Run it whole."
        )
    sizes = [len(program.blocks[call.block].columns[context]) for call in program.calls]
    row_cuts: list[int] = [0, *np.cumsum(sizes).tolist()]
    line_cuts: list[int] = np.append(flow.result, len(flow.lines.row))[row_cuts].tolist()
    rows, own = list(pairwise(row_cuts)), list(pairwise(line_cuts))
    needs = [_needs(flow, *pair) for pair in zip(rows, own, strict=True)]
    for call, lines, (first, _) in zip(program.calls, needs, own, strict=True):
        if len(lines) and lines[-1] >= first:
            raise MachineError(
                f"run: {call.name} reads line {lines[-1]} of a later call, its own begin at {first}: "
                "this program cannot be streamed."
            )
    handed = np.unique(np.concatenate([*needs, flow.logits, [flow.token]]))
    for line in handed:
        if flow.lines.kind[line] not in _POOL:
            name = program.calls[int(np.searchsorted(line_cuts, line, side="right")) - 1].name
            raise MachineError(
                f"run: {name} hands over {in_words(flow.lines.kind[line])} lines, f32 and fp16 ones can be "
                "streamed. Run it whole."
            )
    for i, call in enumerate(program.calls):
        if sizes[i]:
            first, last = np.searchsorted(handed, own[i])
            yield _piece(call.name, flow, rows[i], own[i], needs[i], handed[first:last])


def pool_of(flow: Dataflow, lines: Of) -> Of:
    """The `Pool` that holds each of these lines, which calls hand over."""
    return np.array([_POOL[int(kind)] for kind in flow.lines.kind[lines]], np.int64)


def _needs(flow: Dataflow, rows: Span, own: Span) -> Of:
    """Lines of other calls that these rows read, transfers followed to what they copy."""
    begin, end = rows
    moved = is_transfer(flow.columns.op[begin:end])
    out: list[np.ndarray] = []
    for first, found in zip(flow.lines.first, flow.lines.found, strict=True):
        lines = found[first[begin] : first[end]]
        used = ~np.repeat(moved, np.diff(first[begin : end + 1]))
        out.append(lines[used & ((lines < own[0]) | (lines >= own[1]))])
    return np.unique(np.concatenate(out))


def _piece(
    name: str,
    flow: Dataflow,
    rows: Span,
    own: Span,
    needs: Int[np.ndarray, " needs"],
    hands: Int[np.ndarray, " hands"],
) -> Piece:
    (begin, end), count = rows, own[1] - own[0]
    columns = Columns(**{field: getattr(flow.columns, field)[begin:end] for field in COLUMNS + TAGS})

    def local(lines: Of) -> Of:
        inside = (lines >= own[0]) & (lines < own[1])
        return np.where(inside, lines - own[0], count + np.searchsorted(needs, lines))

    first = tuple(every[begin : end + 1] - every[begin] for every in flow.lines.first)
    found = tuple(
        local(found[every[begin] : every[end]])
        for every, found in zip(flow.lines.first, flow.lines.found, strict=True)
    )
    extra = np.full(len(needs), -1)
    lines = Resolved(
        row=np.append(flow.lines.row[own[0] : own[1]] - begin, extra),
        line=np.append(flow.lines.line[own[0] : own[1]], 0 * extra),
        kind=np.append(flow.lines.kind[own[0] : own[1]], flow.lines.kind[needs]),
        first=(first[0], first[1]),
        found=(found[0], found[1]),
    )
    regions = np.sort(flow.region[begin:end][columns.op == Op.KVW])
    region = _within(name, flow.region[begin:end], regions)
    products = flow.drain[begin:end]
    if ((products >= 0) & ((products < begin) | (products >= end))).any():
        raise MachineError(f"run: {name} leaves products to another call: this program cannot be streamed.")
    counts = flow.loads[begin:end]
    spots = np.repeat(flow.load[begin:end], counts) + ramp(counts)
    used, order = np.unique(flow.load_order[spots], return_inverse=True)
    levels = flow.level[begin:end]
    level = np.full(len(levels), -1, np.int64)
    level[levels >= 0] = np.unique(levels[levels >= 0], return_inverse=True)[1]
    piece = replace(
        flow,
        columns=columns,
        lines=lines,
        result=flow.result[begin:end] - own[0],
        load_order=order.reshape(-1),
        load=np.cumsum(counts) - counts,
        loads=counts,
        drain=np.where(products >= 0, products - begin, -1),
        region=region,
        append=flow.append[regions] - begin,
        region_at=flow.region_at[regions],
        state=flow.state[begin:end],
        level=level,
        logits=np.zeros(0, np.int64),
        logits_at=np.zeros(0, np.int64),
        token=0,
        vocab=0,
    )
    return Piece(
        name=name,
        first=begin,
        flow=piece,
        used=used,
        regions=regions,
        needs=needs,
        hands=hands - own[0],
        hand_lines=hands,
    )


def _within(
    name: str, region: Int[np.ndarray, " rows"], known: Int[np.ndarray, " regions"]
) -> Int[np.ndarray, " rows"]:
    """Regions numbered within the call; every one must be appended to by the call itself."""
    spot = np.searchsorted(known, region)
    padded = np.append(known, -1)
    if ((region >= 0) & (padded[spot] != region)).any():
        raise MachineError(
            f"run: {name} reads a KV region that another call appends to: this program cannot be streamed."
        )
    return np.where(region >= 0, spot, -1)
