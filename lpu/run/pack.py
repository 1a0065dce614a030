"""Pack: items into steps of fixed shape, level by level; equal items (replicated on many chips) run once.

What comes out is data: a table of indices and, per step, the kernel, the table offset and where in the pools
its rows begin. Sizes are rounded up to few distinct ones, so that programs of one shape share one executable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from compiler.program.isa import F32_LANES, stripes
from lpu.link.link import Dataflow
from lpu.run.dense import DENSE_ROWS, dense_products
from lpu.run.image import MachineError, Placed, Plan
from lpu.run.items import WIDE, Items, Products, items, products

TILE_BATCH = 32  # tiles of 320 x 80 per step: 0.8 MB of codes, 6.5 MB decoded
BLOCK_ROWS = (32, 64, 32)  # pool rows that one step may return, unless one item needs more
DENSE_BLOCK_ROWS = (8, 32, 8)  # the same where steps have many rows
_STEP_US, _ROW_US = 10.0, 0.4  # cost model for batch sizes: a step, and a pool row gathered or written
_DENSE_US = 8.0  # and a step of many rows, by row


@dataclass(frozen=True, slots=True)
class Kind:
    """A kernel with its static parameters, items per step, table width, and rows per item in each pool."""

    kernel: str
    params: tuple[tuple[str, Any], ...]
    width: int
    batch: int
    rows: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a compiled executor depends on: kinds, rows per step and in all, lengths of the tables.

    batch: rows that a step takes, in equal runs of `sequences`.
    """

    kinds: tuple[Kind, ...]
    block: tuple[int, int, int]
    pools: tuple[int, int, int]
    batch: int
    sequences: int
    vocab: int


class Tables(NamedTuple):
    """A packed program: int32 arrays. `dealt` is (stripe, stripes) of every region, per store."""

    kind: np.ndarray
    offset: np.ndarray
    rows: np.ndarray
    table: np.ndarray
    logits: np.ndarray
    token: np.ndarray
    keys: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    dealt: tuple[np.ndarray, ...]


class Packed(NamedTuple):
    """The executor's program and what it counts: items per kernel after merging equal ones, steps, levels.

    where: the pool row of every written line.
    """

    layout: Layout
    tables: Tables
    counts: dict[str, int]
    where: np.ndarray


class Carried(NamedTuple):
    """Lines that are there before the first step: which, in which pool row, how many rows of each pool."""

    lines: np.ndarray
    rows: np.ndarray
    counts: tuple[int, int, int]


NOTHING = Carried(np.zeros(0, np.int64), np.zeros(0, np.int64), (0, 0, 0))


def bucket(size: int) -> int:
    """The size rounded up to three significant bits and a half: at most an eighth more."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


class _Group(NamedTuple):
    """Items of one class in one level: translated table and where their rows begin; or a batch of tiles."""

    which: int
    table: np.ndarray
    cursor: tuple[int, int, int]
    starts: np.ndarray | None


class _Packer:
    """Walks the levels, hands out pool rows, remembers in which one every written line lies."""

    def __init__(self, flow: Dataflow, work: list[Items], tiles: Products, carried: Carried) -> None:
        self.flow, self.tiles = flow, tiles
        self.written = len(flow.lines.row)
        self.where = np.zeros(self.written + tiles.parts + 1, np.int64)
        self.where[carried.lines] = carried.rows
        self.cursor = [1 + count for count in carried.counts]
        self.groups: list[_Group] = []
        self.work: list[Items] = []
        self.cuts: list[np.ndarray] = []
        levels = np.arange(flow.levels + 1)
        for each in work:
            order = np.argsort(each.level, kind="stable")
            out = tuple((pool, rows, line[order]) for pool, rows, line in each.out)
            self.work.append(
                Items(
                    kernel=each.kernel,
                    params=each.params,
                    table=each.table[order],
                    pooled=np.flatnonzero(each.pooled),
                    level=each.level[order],
                    out=out,
                )
            )
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
        table[:, :2] = self.where[table[:, :2]]
        starts = part[::TILE_BATCH]
        segment = part - np.repeat(starts, TILE_BATCH)[: len(part)]
        parts = np.arange(part[0], part[-1] + 1)
        base = self.cursor[WIDE] - part[0]
        self.where[self.written + parts] = base + parts
        table = np.concatenate([table, segment[:, None]], axis=1)
        self.groups.append(_Group(-1, table, self._at(), base + starts))
        self.cursor[WIDE] += len(parts)

    def _emit(self, index: int, span: slice) -> None:
        each = self.work[index]
        table = each.table[span].copy()
        table[:, each.pooled] = self.where[table[:, each.pooled]]
        table, same = _merge(table)
        self.groups.append(_Group(index, table, self._at(), None))
        for pool, rows, lines in each.out:
            base = self.cursor[pool] + rows * same
            if lines.ndim == 2:
                self.where[lines[span]] = base[:, None] + np.arange(rows)
            else:
                count = 1 if pool == WIDE else rows
                self.where[lines[span, None] + np.arange(count)] = base[:, None] + np.arange(count)
            self.cursor[pool] += rows * len(table)

    def _at(self) -> tuple[int, int, int]:
        return self.cursor[0], self.cursor[1], self.cursor[2]


def _merge(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def pack(
    flow: Dataflow, placed: Plan | Placed, stores: Mapping[int, int], carried: Carried = NOTHING
) -> Packed:
    """The steps that execute a dataflow; `carried` lines lie in the pools from row 1 on."""
    _check_ranges(flow)
    many = flow.batch >= DENSE_ROWS
    tiles, work = dense_products(flow, placed) if many else products(flow, placed, TILE_BATCH)
    packer = _Packer(flow, work + items(flow, placed, stores), tiles, carried)
    packer.pack()
    kinds, index = _kinds(packer)
    steps = _steps(packer.groups, kinds, index)
    block = tuple(max(k.batch * k.rows[pool] for k in kinds) for pool in range(3))
    where, lines = packer.where, flow.lines
    regions: list[list[np.ndarray]] = [[], []]
    for operand in (0, 1):
        for store in sorted(set(stores.values())):
            appends = [row for row in flow.append if stores[int(flow.columns.aux[row])] == store]
            first = lines.first[operand]
            rows = [where[lines.found[operand][first[row] : first[row + 1]]] for row in appends]
            regions[operand].append(np.array(rows, np.int32))
    tables = Tables(
        *steps,
        logits=logits_rows(flow, where),
        token=np.array(where[flow.token], np.int32),
        keys=tuple(regions[0]),
        values=tuple(regions[1]),
        dealt=tuple(_dealt(flow, stores, store) for store in sorted(set(stores.values()))),
    )
    ends = packer.cursor
    tail = np.array([ends], np.int32)
    spare = bucket(len(tables.kind)) - len(tables.kind)
    tables = tables._replace(
        kind=np.append(tables.kind, np.zeros(spare, np.int32)),
        offset=np.append(tables.offset, np.zeros(spare, np.int32)),
        rows=np.concatenate([tables.rows, np.repeat(tail, spare, axis=0)]),
        table=np.append(tables.table, np.zeros(bucket(len(tables.table)) - len(tables.table), np.int32)),
    )
    layout = Layout(
        kinds=kinds,
        block=(block[0], block[1], block[2]),
        pools=(bucket(ends[0] + block[0]), bucket(ends[1] + block[1]), bucket(ends[2] + block[2])),
        batch=flow.batch,
        sequences=next((int(k.sequences) for k in flow.kernels if k["op"] == "attention"), flow.batch),
        vocab=flow.vocab,
    )
    counts = {"steps": len(steps[0]), "levels": flow.levels}
    for group in packer.groups:
        name = kinds[index[group.which]].kernel
        counts[name] = counts.get(name, 0) + len(group.table)
    return Packed(layout, tables, counts, where)


def _dealt(flow: Dataflow, stores: Mapping[int, int], store: int) -> np.ndarray:
    """(stripe, stripes) of each region of a store: which of every so many runs of 80 tokens it holds."""
    rows = [row for row in flow.append if stores[int(flow.columns.aux[row])] == store]
    aux, stripe = flow.columns.aux[rows], np.maximum(flow.columns.src3[rows], 0)
    return np.stack([stripe, [stripes(flow.kernels[kernel]) for kernel in aux]], axis=-1).astype(np.int32)


def _check_ranges(flow: Dataflow) -> None:
    """What the pools hold as f32 numbers must be exact there, and a line must have a lane per head."""
    limits = {"frac": 24, "group": F32_LANES, "vocab": 1 << 24}
    for kernel in flow.kernels:
        for name, most in limits.items():
            if kernel.get(name, 0) > most:
                raise MachineError(
                    f"run: {kernel['op']}: {name} is {kernel[name]}, the executor takes {most}."
                )


def logits_rows(flow: Dataflow, where: np.ndarray) -> np.ndarray:
    """Row of every padded vocabulary line, by where each written line lies."""
    count = -(-flow.vocab // F32_LANES)
    order = np.argsort(flow.logits_at, kind="stable")
    if not np.array_equal(flow.logits_at[order], np.arange(count)):
        raise MachineError(
            f"run: the manifest names {len(order)} logits lines, "
            f"a vocabulary of {flow.vocab} has {count}, once each."
        )
    return where[flow.logits[order]].astype(np.int32)


def _kinds(packer: _Packer) -> tuple[tuple[Kind, ...], dict[int, int]]:
    """(the kinds, idle first; kind of each class of items). Equal classes share a kind and a batch size."""
    counts: dict[int, list[int]] = {}
    for group in packer.groups:
        counts.setdefault(group.which, []).append(len(group.table))
    shapes: dict[tuple[Any, ...], list[int]] = {}
    for which in counts:
        if which < 0:
            shapes[("mm", (), 4, (0, 0, 1))] = [which]
            continue
        each = packer.work[which]
        rows = [0, 0, 0]
        for pool, count, _ in each.out:
            rows[pool] += count
        shapes.setdefault((each.kernel, each.params, each.table.shape[1], tuple(rows)), []).append(which)
    kinds, index = [Kind("idle", (), 1, 1, (1, 1, 1))], dict[int, int]()
    for shape in sorted(shapes, key=repr):
        kernel, params, width, rows = shape
        sizes = np.concatenate([np.array(counts[which]) for which in shapes[shape]])
        batch = TILE_BATCH if kernel == "mm" else _batch_size(sizes, width, rows, packer.flow.batch)
        index |= dict.fromkeys(shapes[shape], len(kinds))
        kinds.append(Kind(kernel, params, width, batch, rows))
    return tuple(kinds), index


def _batch_size(sizes: np.ndarray, width: int, rows: tuple[int, ...], batch: int) -> int:
    """Items per step (a power of two) that the cost model likes best for groups of these sizes."""
    limits = [limit // max(1, batch // 4) for limit in BLOCK_ROWS]
    fixed = _STEP_US
    if batch >= DENSE_ROWS:  # a block of such rows costs more to write than the items in it
        limits = list(map(max, limits, DENSE_BLOCK_ROWS))
        fixed += _DENSE_US * batch
    most = min(limit // count for limit, count in zip(limits, rows, strict=True) if count)
    choices = [1 << i for i in range(max(most, 1).bit_length())]
    item = _ROW_US * batch * (min(width, 32) + sum(rows))
    return min(choices, key=lambda size: float((-(-sizes // size) * (fixed + size * item)).sum()))


def _steps(
    groups: list[_Group], kinds: tuple[Kind, ...], index: dict[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(kind, table offset, first row in each pool) of every step, and the table."""
    kind: list[np.ndarray] = []
    cursor: list[np.ndarray] = []
    tables: list[np.ndarray] = [np.zeros(1, np.int64)]
    sizes: list[int] = []
    for group in groups:
        shape = kinds[index[group.which]]
        count = -(-len(group.table) // shape.batch)
        padded = np.zeros((count * shape.batch, shape.width), np.int64)
        padded[: len(group.table)] = group.table
        tables.append(padded.reshape(-1))
        kind.append(np.full(count, index[group.which]))
        step = np.arange(count)[:, None] * shape.batch * np.array(shape.rows)
        rows = np.array(group.cursor) + step
        if group.starts is not None:
            rows = np.tile(group.cursor, (count, 1))
            rows[:, WIDE] = group.starts
        cursor.append(rows)
        sizes += [shape.batch * shape.width] * count
    ends = np.cumsum([1, *sizes])
    return (
        np.concatenate(kind).astype(np.int32),
        ends[:-1].astype(np.int32),
        np.concatenate(cursor).astype(np.int32),
        np.concatenate(tables).astype(np.int32),
    )
