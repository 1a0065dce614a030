"""Groups of equal items as steps: the kinds of kernel that there are, items per step, and the step tables."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Int, Int32

from lpu.run.ops.dense import DENSE_ROWS
from lpu.run.ops.items import Items
from lpu.run.ops.matmul import TILE_BATCH, mm, xmm
from lpu.run.pack.layout import Counts, KernelKind
from lpu.run.pools import Env, Pool, Pools

BLOCK_ROWS = (32, 64, 32)  # pool rows that one step may return, unless one item needs more
DENSE_BLOCK_ROWS = (8, 32, 8)  # the same where steps have many rows
PRODUCTS = -1  # class of a batch of tiles, which no `Items` describe
FOUR = 4
_STEP_US, _ROW_US = 10.0, 0.4  # cost model for batch sizes: a step, and a pool row gathered or written
_DENSE_US = 8.0  # and a step of many rows, by row


class ItemGroup(NamedTuple):
    """Items of one class in one level, or a batch of tiles: their table and where their rows begin.

    which: index of the class, or PRODUCTS; then `starts` are the first wide rows of each step.
    """

    which: int
    table: Int[np.ndarray, "items width"]
    cursor: Counts
    starts: Int[np.ndarray, " steps"] | None


class _SharedKind(NamedTuple):
    """What classes of items share that become one kind, and the classes."""

    kind: KernelKind  # of batch 0
    classes: list[int]

    @property
    def key(self) -> tuple[str, str, str, int, Counts]:
        """Sorts kinds by what they are, not by where a process keeps them."""
        kernel = self.kind.kernel
        return kernel.__name__, kernel.__module__, repr(self.kind.params), self.kind.width, self.kind.rows


def idle(k: None, env: Env, pools: Pools, t: Int[Array, "items width"]) -> Pools:
    """No new rows: the steps that fill a table up."""
    return Pools()


def kinds_of(
    groups: list[ItemGroup], work: list[Items], batch: int
) -> tuple[tuple[KernelKind, ...], dict[int, int]]:
    """(the kinds, idle first; kind of each class of items). Equal classes share a kind and a batch size."""
    sizes: dict[int, list[int]] = {}
    width = 0  # of the tables of tiles
    for group in groups:
        sizes.setdefault(group.which, []).append(len(group.table))
        width = group.table.shape[1] if group.which == PRODUCTS else width
    tiles = KernelKind(mm if width == 4 else xmm, None, width, 0, (0, 0, 1))
    shapes: dict[KernelKind, _SharedKind] = {}
    for which in sizes:
        kind = tiles if which == PRODUCTS else _kind(work[which])
        shapes.setdefault(kind, _SharedKind(kind, [])).classes.append(which)
    kinds, index = [KernelKind(idle, None, 1, 1, (1, 1, 1))], dict[int, int]()
    for shape in sorted(shapes.values(), key=lambda shape: shape.key):
        every = np.concatenate([np.array(sizes[which]) for which in shape.classes])
        size = TILE_BATCH if PRODUCTS in shape.classes else _batch_size(every, shape.kind, batch)
        index |= dict.fromkeys(shape.classes, len(kinds))
        kinds.append(replace(shape.kind, batch=size))
    return tuple(kinds), index


def _kind(items: Items) -> KernelKind:
    rows = [0, 0, 0]
    for result in items.out:
        rows[result.pool] += result.rows
    return KernelKind(items.kernel, items.params, items.table.shape[1], 0, (rows[0], rows[1], rows[2]))


def _batch_size(sizes: Int[np.ndarray, " groups"], kind: KernelKind, batch: int) -> int:
    """Items per step (a power of two) that the cost model likes best for groups of these sizes.

    Four are taken if they cost at most two steps more than the best: programs then share an executable.
    """
    limits = [limit // max(1, batch // 4) for limit in BLOCK_ROWS]
    fixed = _STEP_US
    if batch >= DENSE_ROWS:  # a block of such rows costs more to write than the items in it
        limits = list(map(max, limits, DENSE_BLOCK_ROWS))
        fixed += _DENSE_US * batch
    most = min(limit // count for limit, count in zip(limits, kind.rows, strict=True) if count)
    choices = [1 << i for i in range(max(most, 1).bit_length())]
    item = _ROW_US * batch * (min(kind.width, 32) + sum(kind.rows))
    costs = {size: float((-(-sizes // size) * (fixed + size * item)).sum()) for size in choices}
    best = min(choices, key=costs.__getitem__)
    return FOUR if costs.get(FOUR, np.inf) <= costs[best] + 2 * _STEP_US else best


class PackedSteps(NamedTuple):
    """The first four columns of `StepTables`."""

    kind: Int32[np.ndarray, " steps"]
    offset: Int32[np.ndarray, " steps"]
    rows: Int32[np.ndarray, "steps 3"]
    table: Int32[np.ndarray, " entries"]


def steps_of(groups: list[ItemGroup], kinds: tuple[KernelKind, ...], index: dict[int, int]) -> PackedSteps:
    """Every group as steps of its kind's batch, the last one padded with zeros."""
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
        rows = np.array(group.cursor) + np.arange(count)[:, None] * shape.batch * np.array(shape.rows)
        if group.starts is not None:
            rows = np.tile(group.cursor, (count, 1))
            rows[:, Pool.WIDE] = group.starts
        cursor.append(rows)
        sizes += [shape.batch * shape.width] * count
    ends = np.cumsum([1, *sizes])
    return PackedSteps(
        kind=np.concatenate(kind).astype(np.int32),
        offset=ends[:-1].astype(np.int32),
        rows=np.concatenate(cursor).astype(np.int32),
        table=np.concatenate(tables).astype(np.int32),
    )
