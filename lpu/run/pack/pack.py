"""Pack: items into steps of fixed shape, level by level; equal items (replicated on many chips) run once.

What comes out is data: a table of indices and, per step, the kernel, the table offset and where in the pools
its rows begin. Sizes are rounded up to few distinct ones, so that programs of one shape share one executable.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Int, Int32

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.recurrent import StateKernel
from compiler.program.isa import F32_LANES
from lpu.link.link import Dataflow
from lpu.run.clips import Made
from lpu.run.error import MachineError
from lpu.run.image import ImagePlan
from lpu.run.kv import region_kernel, state_classes
from lpu.run.ops.dense import DENSE_ROWS, dense_products
from lpu.run.ops.items import Items, kept_line
from lpu.run.ops.matmul import TILE_BATCH, Products, chooses_experts, products
from lpu.run.ops.registry import items
from lpu.run.overflow import counting_rows
from lpu.run.pack.batches import PRODUCTS, ItemGroup, PackedSteps, kinds_of, steps_of
from lpu.run.pack.layout import NOTHING, Carried, Counts, Packed, StepLayout, StepTables, rounded_up
from lpu.run.pools import Pool

LEAST_ROWS = 512  # of a pool: small programs are of one size


class _Packer:
    """Walks the levels, hands out pool rows, remembers in which one every written line lies."""

    def __init__(self, flow: Dataflow, work: list[Items], tiles: Products, carried: Carried) -> None:
        self.flow, self.tiles = flow, tiles
        self.written = len(flow.lines.row)
        self.where = np.zeros(self.written + tiles.parts + len(flow.states) + 1, np.int64)
        self.where[carried.lines] = carried.rows
        self.cursor = [1 + count for count in carried.counts]
        self.made: list[tuple[np.ndarray, np.ndarray]] = []  # fp16 rows, and a written line in each
        self.groups: list[ItemGroup] = []
        self.work: list[Items] = []
        self.cuts: list[np.ndarray] = []
        levels = np.arange(flow.levels + 1)
        for each in work:
            order = np.argsort(each.level, kind="stable")
            out = tuple(result._replace(line=result.line[order]) for result in each.out)
            self.work.append(replace(each, table=each.table[order], level=each.level[order], out=out))
            self.cuts.append(np.searchsorted(each.level[order], levels))
        self.tile_cuts = np.searchsorted(tiles.level, levels)
        self.fold_cuts = np.searchsorted(tiles.fold_level, levels)

    def pack(self) -> None:
        """All levels in order: products first, then what may use them."""
        present = [np.flatnonzero(np.diff(cuts)) for cuts in self.cuts]
        level = np.concatenate([*present, np.zeros(0, np.int64)])
        which = np.repeat(np.arange(len(present)), [len(p) for p in present])
        order = np.lexsort((which, level))
        ends = np.searchsorted(level[order], np.arange(self.flow.levels + 1))
        for now in range(self.flow.levels):
            if self.tile_cuts[now] < self.tile_cuts[now + 1]:
                self._multiply(slice(self.tile_cuts[now], self.tile_cuts[now + 1]))
            for index in which[order[ends[now] : ends[now + 1]]]:
                self._emit(int(index), slice(self.cuts[index][now], self.cuts[index][now + 1]))
            pair = self.tiles.folded[self.fold_cuts[now] : self.fold_cuts[now + 1]]
            self.where[pair[:, 0]] = self.where[pair[:, 1]]

    def _multiply(self, tiles: slice) -> None:
        table, part = self.tiles.table[tiles].copy(), self.tiles.part[tiles]
        table[:, :-1] = self.where[table[:, :-1]]
        starts = part[::TILE_BATCH]
        segment = part - np.repeat(starts, TILE_BATCH)[: len(part)]
        parts = np.arange(part[0], part[-1] + 1)
        base = self.cursor[Pool.WIDE] - part[0]
        self.where[self.written + parts] = base + parts
        table = np.concatenate([table, segment[:, None]], axis=1)
        self.groups.append(ItemGroup(PRODUCTS, table, self.at(), base + starts))
        self.cursor[Pool.WIDE] += len(parts)

    def _emit(self, index: int, span: slice) -> None:
        each = self.work[index]
        table = each.table[span].copy()
        table[:, : each.lines] = self.where[table[:, : each.lines]]
        table, same = _merge(table)
        self.groups.append(ItemGroup(index, table, self.at(), None))
        for pool, rows, lines in each.out:
            base = self.cursor[pool] + rows * same
            if pool == Pool.F16:
                first = lines[span] if lines.ndim == 1 else lines[span, 0]
                self.made.append((base[:, None] + np.arange(rows), first))
            if lines.ndim == 2:
                self.where[lines[span]] = base[:, None] + np.arange(lines.shape[1])
            else:
                count = 1 if pool == Pool.WIDE else rows
                self.where[lines[span, None] + np.arange(count)] = base[:, None] + np.arange(count)
            self.cursor[pool] += rows * len(table)

    def left(self) -> Made:
        """What leaves each fp16 row."""
        out = np.full((self.cursor[Pool.F16], 2), -1, np.int32)
        for rows, lines in self.made:
            row = self.flow.lines.row[lines]
            out[rows] = np.stack([row, self.flow.columns.op[row]], axis=-1)[:, None]
        return out

    def at(self) -> Counts:
        """The first free row of each pool."""
        return self.cursor[0], self.cursor[1], self.cursor[2]


def _merge(
    table: Int[np.ndarray, "items width"],
) -> tuple[Int[np.ndarray, "distinct width"], Int[np.ndarray, " items"]]:
    """(distinct rows in order of appearance, index of each row among them)."""
    if len(table) == 1:
        return table, np.zeros(1, np.int64)
    _, first, same = np.unique(table, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(table):
        return table, np.arange(len(table))
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return table[first[order]], rank[same.reshape(-1)]


def pack(flow: Dataflow, plan: ImagePlan, stores: Mapping[int, int], carried: Carried = NOTHING) -> Packed:
    """The steps that execute a dataflow; `carried` lines lie in the pools from row 1 on.

    stores: index of the KV arrays of each attention kernel. Raises MachineError for what cannot be executed.
    """
    large = flow.batch >= DENSE_ROWS and not chooses_experts(flow)
    tiles, work = dense_products(flow, plan) if large else products(flow, plan)
    packer = _Packer(flow, work + items(flow, plan, stores), tiles, carried)
    packer.pack()
    kinds, index = kinds_of(packer.groups, packer.work, flow.batch)
    steps = steps_of(packer.groups, kinds, index)
    block = tuple(max(k.batch * k.rows[pool] for k in kinds) for pool in Pool)
    ends = packer.cursor
    layout = StepLayout(
        kinds=kinds,
        block=(block[0], block[1], block[2]),
        pools=(
            rounded_up(max(ends[0] + block[0], LEAST_ROWS)),
            rounded_up(max(ends[1] + block[1], LEAST_ROWS)),
            rounded_up(max(ends[2] + block[2], LEAST_ROWS)),
        ),
        batch=flow.batch,
        sequences=next(
            (k.sequences for k in flow.kernels if isinstance(k, AttentionKernel | StateKernel)), flow.batch
        ),
        vocab=flow.vocab,
    )
    counts = {"steps": len(steps.kind), "levels": flow.levels}
    for group in packer.groups:
        name = kinds[index[group.which]].kernel.__name__
        counts[name] = counts.get(name, 0) + len(group.table)
    return Packed(
        layout,
        _tables(flow, _filled_up(steps, packer.at()), packer.where, stores),
        counts,
        packer.where,
        packer.left(),
        counting_rows(flow),
    )


def _filled_up(steps: PackedSteps, ends: Counts) -> PackedSteps:
    """The steps with idle ones after them, which write behind all rows: `ends` of each pool."""
    spare = rounded_up(len(steps.kind)) - len(steps.kind)
    more = rounded_up(len(steps.table)) - len(steps.table)
    return PackedSteps(
        kind=np.append(steps.kind, np.zeros(spare, np.int32)),
        offset=np.append(steps.offset, np.zeros(spare, np.int32)),
        rows=np.concatenate([steps.rows, np.repeat(np.array([ends], np.int32), spare, axis=0)]),
        table=np.append(steps.table, np.zeros(more, np.int32)),
    )


def _tables(
    flow: Dataflow, steps: PackedSteps, where: Int[np.ndarray, " lines"], stores: Mapping[int, int]
) -> StepTables:
    """The steps, and where what they leave lies."""
    appends = {
        store: [row for row in flow.append.tolist() if stores[int(flow.columns.aux[row])] == store]
        for store in sorted(set(stores.values()))
    }
    lines = flow.lines

    def rows(operand: int, append: list[int]) -> Int32[np.ndarray, "regions lines"]:
        first, found = lines.first[operand], lines.found[operand]
        return np.array([where[found[first[row] : first[row + 1]]] for row in append], np.int32)

    return StepTables(
        *steps,
        logits=logits_rows(flow, where),
        token=np.array(where[flow.token], np.int32),
        keys=tuple(rows(0, append) for append in appends.values()),
        values=tuple(rows(1, append) for append in appends.values()),
        dealt=tuple(_dealt(flow, append) for append in appends.values()),
        states=tuple(
            where[kept_line(np.arange(one.lines.start, one.lines.stop))].astype(np.int32)
            for one in state_classes(flow)
        ),
        slots=where[flow.result[counting_rows(flow)]].astype(np.int32),
    )


def _dealt(flow: Dataflow, append: list[int]) -> Int32[np.ndarray, "regions 3"]:
    """(stripe, stripes, run) of each region: of every `stripes` runs of tokens it holds number `stripe`."""
    stripe = np.maximum(flow.columns.src3[append], 0)
    kernels = [region_kernel(flow, row) for row in append]
    dealt = np.array([(kernel.stripes, kernel.run) for kernel in kernels]).reshape(-1, 2)
    return np.column_stack([stripe, dealt]).astype(np.int32)


def logits_rows(flow: Dataflow, where: Int[np.ndarray, " lines"]) -> Int32[np.ndarray, " vocab_lines"]:
    """Row of every padded vocabulary line, by where each written line lies."""
    count = -(-flow.vocab // F32_LANES)
    order = np.argsort(flow.logits_at, kind="stable")
    if not np.array_equal(flow.logits_at[order], np.arange(count)):
        raise MachineError(
            f"run: the manifest names {len(order)} logits lines, "
            f"a vocabulary of {flow.vocab} has {count}, once each."
        )
    return where[flow.logits[order]].astype(np.int32)
