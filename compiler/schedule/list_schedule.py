"""Scheduling: rows of one block -> a cycle and a unit (or lanes) for each, by list scheduling.

Events are canonical: everything that happens in a cycle is absorbed before anything is dispatched, and a unit
takes the ready row of lowest index. So equal blocks get equal schedules, whatever happened before them.
Source: facts scheduling.md section 3.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.errors import bug
from compiler.lower.rows import Kernels, Rows
from compiler.program.instruction_set import INSTRUCTIONS, name_of
from compiler.program.isa import (
    DRAIN,
    HOST_IN,
    HOST_OUT,
    LINK,
    MXM,
    TAG_SHIFT,
    TRANSFER,
    TRANSIENT,
    VXM,
    Kernel,
    Op,
    ceil_div,
    few,
    is_transfer,
)
from compiler.program.packed import RANKS, WORD_BITS, PackedKey, alike, by_kind
from compiler.program.ranges import ramp
from compiler.route.route import Router
from compiler.schedule.ports import PortLoad, moves
from compiler.timing import timing
from fabric.chip import ChipSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When and where each row runs: start, result, unit (transfers: -1), first lane and lanes (transfers)."""

    t0: np.ndarray
    t1: np.ndarray
    unit: np.ndarray
    lane: np.ndarray
    lanes: np.ndarray

    @property
    def cycles(self) -> int:
        """Length of the schedule."""
        return int(self.t1.max(initial=0))

    def __str__(self) -> str:
        where = [
            f"unit {unit}" if first < 0 else f"lanes {first}-{first + lanes - 1}"
            for unit, first, lanes in zip(self.unit, self.lane, self.lanes, strict=True)
        ]
        rows = zip(self.t0, self.t1, where, strict=True)
        return few([f"row {row:3}  {t0:6}..{t1:6}  {at}" for row, (t0, t1, at) in enumerate(rows)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Transient line ranges that rows read or write: row, rank, tag of the first line, lines."""

    row: np.ndarray
    rank: np.ndarray
    tag: np.ndarray
    lines: np.ndarray


def spans(rows: Rows, kernels: Kernels | Sequence[Kernel], writes: bool) -> Spans:
    """Every transient range that the rows write, or read."""
    none = np.zeros(0, np.int64)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = [(none, none, none, none)]
    for op, aux, which in by_kind(rows.op, rows.aux):
        kernel = kernels[aux] if aux >= 0 else TRANSFER
        record = INSTRUCTIONS[op]
        for operand in ((record.write,) if record.write else ()) if writes else record.reads:
            if operand.space != TRANSIENT or not operand.is_in(kernel):
                continue
            n = rows.n[which]
            rank = rows.peer[which] if writes and op in (Op.SEND, Op.FORWARD) else rows.rank[which]
            tags = getattr(rows, operand.column + "_tag")[which]
            size = operand.extent(n, kernel)
            if operand.stride is not None:
                piece = np.repeat(np.arange(len(which)), n)
                tags = tags[piece] + ramp(n) * operand.stride(kernel)
                parts.append((which[piece], rank[piece], tags, np.ones_like(tags)))
            else:
                parts.append((which, rank, tags, size))
    columns = [np.concatenate([part[i] for part in parts]) for i in range(4)]
    return Spans(row=columns[0], rank=columns[1], tag=columns[2], lines=columns[3])


def dependencies(rows: Rows, kernels: Kernels | Sequence[Kernel], given: int = 0) -> np.ndarray:
    """int64 [edges, 2]: (writer, reader) through every transient line, and the rows' own edges.

    Raises CompileError if a row reads lines that nothing writes (value `given`, the block's input, excepted).
    """
    wrote, read = spans(rows, kernels, True), spans(rows, kernels, False)
    ends = [((span.tag & _LINE) + span.lines).max(initial=0) for span in (wrote, read)]
    line_bits = int(max(ends)).bit_length()  # no span reaches into the lines of the next rank
    rank_bits = int(max(rows.rank.max(), rows.peer.max()) + 1).bit_length()

    bits = PackedKey(value=WORD_BITS - rank_bits - line_bits, rank=rank_bits, line=line_bits)

    def key(span: Spans) -> np.ndarray:
        return bits.pack(span.tag >> TAG_SHIFT, span.rank, span.tag & _LINE)

    begins = key(wrote)
    order = np.argsort(begins, kind="stable")
    begins, sizes, writers = begins[order], wrote.lines[order], wrote.row[order]
    want = key(read)
    reached = np.maximum.accumulate(begins + sizes)  # a line may be brought twice, by spans within spans
    high = np.searchsorted(begins, want + read.lines, side="left")
    low = np.minimum(np.searchsorted(reached, want, side="right"), high)
    ends = np.append(0, np.cumsum(sizes))
    covered = ends[high] - ends[low]
    missing = (covered < read.lines) & (read.tag >> TAG_SHIFT != given)
    if missing.any():
        row = int(read.row[np.flatnonzero(missing)[0]])
        raise bug("schedule", f"row {row} ({name_of(int(rows.op[row]))})", "reads lines that no row writes")
    count = high - low
    span = np.repeat(low, count) + ramp(count)
    met = begins[span] + sizes[span] > np.repeat(want, count)
    reader, writer = np.repeat(read.row, count)[met], writers[span[met]]
    edges = np.concatenate([np.stack([writer, reader], axis=-1), rows.edges])
    return np.stack(_EDGE.unpack(np.unique(_EDGE.pack(edges[:, 0], edges[:, 1]))), axis=-1)


_LINE = (1 << TAG_SHIFT) - 1
_EDGE = PackedKey(earlier=31, later=32)
RESOURCE = PackedKey(rank=20, kind=4, which=20)  # which: the plane or drain, the peer of a link, else 0


def schedule(rows: Rows, kernels: Kernels, router: Router, chip: ChipSpec, batch: int) -> Times:
    """List-schedule the rows of a block on the units and links of its ranks."""
    hold = np.zeros(len(rows), np.int64)
    latency = np.zeros(len(rows), np.int64)
    lanes = np.full(len(rows), 1, np.int64)
    resource = np.zeros(len(rows), np.int64)
    free: dict[int, int] = {}
    for op, aux, which in by_kind(rows.op, rows.aux):
        kind = INSTRUCTIONS[op].unit
        if kind == LINK:
            _links(rows, which, op, router, batch, hold, latency, lanes, resource, free)
            continue
        hold[which], latency[which] = timing(op, rows.n[which], kernels[aux], chip, batch)
        pin = rows.pin[which] if kind in (MXM, DRAIN) else 0
        resource[which] = RESOURCE.pack(rows.rank[which], kind, pin)
        for name in np.unique(resource[which]).tolist():
            free[name] = (1 << chip.vxm_chains) - 1 if kind == VXM else 1
    edges, moved = dependencies(rows, kernels), moves(rows, kernels, hold, batch, chip.activation_ports)
    needs = (resource.tolist(), hold.tolist(), latency.tolist(), lanes.tolist())
    t0, instance = start_cycles(edges, *needs, dict(free))
    if moved.most(t0, t0 + latency, hold) > moved.limit:  # rare: chips have ports for nearly everything
        t0, instance = start_cycles(edges, *needs, free, PortLoad(moved, needs[1], needs[2]))
    transfer = is_transfer(rows.op)
    kind = RESOURCE.unpack(resource)[1]
    host = 2 * chip.planes + chip.vxm_chains
    unit = np.select(
        [transfer, kind == MXM, kind == DRAIN, kind == HOST_IN, kind == HOST_OUT],
        [-1, rows.pin, chip.planes + rows.pin, host, host + 1],
        2 * chip.planes + instance,
    )
    return Times(
        t0=t0,
        t1=t0 + latency,
        unit=unit,
        lane=np.where(transfer, instance, -1),
        lanes=np.where(transfer, lanes, -1),
    )


def _links(
    rows: Rows,
    which: np.ndarray,
    op: int,
    router: Router,
    batch: int,
    hold: np.ndarray,
    latency: np.ndarray,
    lanes: np.ndarray,
    resource: np.ndarray,
    free: dict[int, int],
) -> None:
    """Transfer rows use the fewest lanes that give the fewest slots, all of one link."""
    forward = router.rack.forward_cycles if op == Op.FORWARD else 0
    for mine in (which[same] for same in alike(RANKS.pack(rows.rank[which], rows.peer[which]))):
        source, target = int(rows.rank[mine[0]]), int(rows.peer[mine[0]])
        edge = router.link(source, target)
        words = rows.n[mine] * batch
        slots = ceil_div(words, edge.lanes)
        lanes[mine] = ceil_div(words, slots)
        hold[mine] = slots * edge.slot_cycles
        latency[mine] = hold[mine] + edge.hop_cycles + forward
        name = RESOURCE.pack(source, LINK, target)
        resource[mine] = name
        free[name] = (1 << edge.lanes) - 1


def start_cycles(
    edges: np.ndarray,
    resource: list[int],
    hold: list[int],
    latency: list[int],
    width: list[int],
    free: dict[int, int],
    load: PortLoad | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(start, first instance) per row; `free[resource]` masks instances, `width` is how many a row takes.

    load: what is left of the activation ports; None: they are not counted.
    """
    size = len(resource)
    waiting = np.bincount(edges[:, 1], minlength=size).tolist()
    pointer = np.searchsorted(edges[:, 0], np.arange(size + 1)).tolist()
    successor = edges[:, 1].tolist()
    ready: dict[int, list[int]] = {name: [] for name in free}
    start, place = [-1] * size, [0] * size
    done: dict[int, list[int]] = {}
    released: dict[int, list[tuple[int, int]]] = {}
    times = [0]
    done[0] = []
    for row in range(size):
        if not waiting[row]:
            heapq.heappush(ready[resource[row]], row)
    dirty = list(ready)
    while times:
        now = heapq.heappop(times)
        for name, mask in released.pop(now, ()):
            free[name] |= mask
            dirty.append(name)
        for row in done.pop(now, ()):
            for after in successor[pointer[row] : pointer[row + 1]]:
                waiting[after] -= 1
                if not waiting[after]:
                    name = resource[after]
                    heapq.heappush(ready[name], after)
                    dirty.append(name)
        for name in dirty if load is None else ready:
            queue = ready[name]
            while queue:
                lanes = width[queue[0]]
                fits = free[name]
                for _ in range(lanes - 1):
                    fits &= fits >> 1
                if not fits or (load is not None and not load.take(queue[0], now)):
                    break
                row = heapq.heappop(queue)
                first = (fits & -fits).bit_length() - 1
                mask = ((1 << lanes) - 1) << first
                free[name] ^= mask
                start[row], place[row] = now, first
                end, commit = now + hold[row], now + latency[row]
                if end not in released:
                    if end not in done:
                        heapq.heappush(times, end)
                    released[end] = []
                released[end].append((name, mask))
                if commit not in done:
                    if commit not in released:
                        heapq.heappush(times, commit)
                    done[commit] = []
                done[commit].append(row)
        dirty = []
    assert min(start, default=0) >= 0, "a cycle among the rows of a block"
    return np.array(start, np.int64), np.array(place, np.int64)
