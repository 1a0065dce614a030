"""Products of many rows: whole columns of K at a time, as large matrix products.

With few rows (`lpu/run/items.py`) the tiles are what costs, so they are taken in the order of the schedule.
With many, output lines that multiply the same input lines become one product, tiles side by side.
"""

import numpy as np

from compiler.program.isa import Op
from lpu.link.link import Dataflow
from lpu.run.image import Placed, Plan
from lpu.run.items import F32, WIDE, Items, Products, Source, written_back

DENSE_ROWS = 32  # from so many rows on: below, large products of decoded tiles are slower (measured)
DEEP = 32  # tiles of 320 input rows in one sum: exact (`numerics.EXACT_K` is 37,449), and bounds its memory
LINES = 8  # output lines of one product, at most


def dense_products(flow: Dataflow, placed: Plan | Placed) -> tuple[Products, list[Items]]:
    """All products as items, and the write-backs that add up those deeper than `DEEP` tiles."""
    source, columns = Source(flow, placed), flow.columns
    rows, j = source.spread(np.flatnonzero(columns.op == Op.MM), 1)
    inputs = np.stack([source.read(0, rows, 0), source.read(0, rows, 1)], axis=-1)
    tile, drain = source.entry(rows, j), flow.drain[rows]
    order = np.lexsort((tile, inputs[:, 0], j, drain))
    inputs, tile, drain, j = inputs[order], tile[order], drain[order], j[order]
    fresh = (np.diff(drain, prepend=-1) != 0) | (np.diff(j, prepend=-1) != 0)
    begins = np.flatnonzero(fresh)
    depth = np.diff(np.append(begins, len(tile)))
    within = np.arange(len(tile)) - np.repeat(begins, depth)
    heads = np.flatnonzero(within % DEEP == 0)  # of each part of an output line
    deep = np.diff(np.append(heads, len(tile)))
    first = np.searchsorted(heads, begins)
    fans = np.diff(np.append(first, len(heads)))
    wide = np.array([bool(k.get("wide")) for k in flow.kernels])[columns.aux[drain[begins]]]
    direct = np.repeat(~wide & (fans == 1), fans)  # rounded at once
    products: list[Items] = []
    for size, rounded in sorted(set(zip(deep.tolist(), direct.tolist(), strict=True))):
        part = np.flatnonzero((deep == size) & (direct == rounded))
        at = heads[part, None] + np.arange(size)
        products += _columns(source, part, inputs[at], tile[at], drain[heads[part]], j[heads[part]], rounded)
    some = wide | (fans > 1)
    folded, rest = written_back(source, drain[begins][some], j[begins][some], first[some], fans[some])
    empty = np.zeros(0, np.int64)
    level = flow.level[drain[begins[np.searchsorted(first, folded[:, 1] - len(flow.lines.row))]]]
    by_level = np.argsort(level, kind="stable")
    return (
        Products(
            table=np.zeros((0, 3), np.int64),
            level=empty,
            part=empty,
            folded=folded[by_level],
            fold_level=level[by_level],
            parts=len(heads),
        ),
        products + rest,
    )


def _columns(
    source: Source,
    part: np.ndarray,
    inputs: np.ndarray,
    tile: np.ndarray,
    drain: np.ndarray,
    line: np.ndarray,
    rounded: bool,
) -> list[Items]:
    """Items of parts of equal depth: `inputs` [parts, depth, 2] written lines, `tile` [parts, depth]."""
    flow, depth = source.flow, tile.shape[1]
    key = np.concatenate([flow.level[drain][:, None], inputs.reshape(len(part), -1)], axis=1)
    _, group = np.unique(key, axis=0, return_inverse=True)
    order = np.lexsort((tile[:, 0], group.reshape(-1)))
    cuts = np.flatnonzero(np.diff(group.reshape(-1)[order], prepend=-1))
    taken: dict[int, list[np.ndarray]] = {}
    for some in np.split(order, cuts[1:]):
        for i in range(0, len(some), LINES):
            mine = some[i : i + LINES]
            size = 1 << (len(mine) - 1).bit_length()
            taken.setdefault(size, []).append(np.append(mine, np.repeat(mine[-1:], size - len(mine))))
    out: list[Items] = []
    for size in sorted(taken):
        which = np.stack(taken[size])  # [items, lines]: the last line again where there are fewer
        first = which[:, 0]
        tiles = np.swapaxes(tile[which], 1, 2).reshape(len(which), -1)
        columns, pooled = [inputs[first].reshape(len(which), -1), tiles], [1, 0]
        if rounded:
            columns.append(source.entry(drain[which], line[which]))
            pooled.append(0)
            result = (F32, size, flow.result[drain[which]] + line[which])
        else:
            result = (WIDE, size, len(flow.lines.row) + part[which])
        params = (("depth", depth), ("lines", size), ("rounded", rounded))
        out.append(source.items("dense", drain[first], columns, pooled, out=(result,), params=params))
    return out
