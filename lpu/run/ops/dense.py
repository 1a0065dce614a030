"""Products of many rows: whole columns of K at a time, as large matrix products.

With few rows (`lpu/run/ops/matmul.py`) the tiles are what costs, so they are taken in the order of the
schedule. With many, output lines that multiply the same input lines become one product, tiles side by side.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from compiler.program.isa import F32_LANES, PRODUCTS, TILE_ROWS
from lpu.link.link import Dataflow
from lpu.run.image import ImagePlan
from lpu.run.ops.items import Items, Reads, Result
from lpu.run.ops.matmul import Products, decode, is_normed, left_wide, tile_of, written_back
from lpu.run.pools import Env, Pool, Pools, lines_of, take, values_of, wide_lines_of
from models.contract import deferred, numerics
from models.contract.formats import Wide, halves, plus0

DENSE_ROWS = 32  # from this batch on: below it, large products of decoded tiles are slower (measured)
DEEP = 32  # tiles of 320 input rows in one sum: exact (`numerics.EXACT_K` is 37,449), and bounds its memory
LINES = 8  # output lines of one product, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseShape:
    """Columns of `lines` output lines times `depth` tiles each; rounded: to f32 at once, else left wide.

    normed: times the statistic of each row, once rounded.
    """

    depth: int
    lines: int
    rounded: bool
    normed: bool


def dense_products(flow: Dataflow, plan: ImagePlan) -> tuple[Products, list[Items]]:
    """All products as items, and the write-backs that add up those deeper than `DEEP` tiles."""
    reads, columns = Reads(flow, plan), flow.columns
    rows, j = reads.spread(np.flatnonzero(np.isin(columns.op, PRODUCTS)), 1)
    inputs = np.stack([reads.line(0, rows, 0), reads.line(0, rows, 1)], axis=-1)
    tile, drain = tile_of(reads, rows, j), flow.drain[rows]
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
    wide = left_wide(flow, drain[begins])
    direct = np.repeat(~wide & (fans == 1), fans)  # rounded at once
    products: list[Items] = []
    normed = direct & is_normed(flow, drain[heads])
    for size, rounded, scaled in sorted(
        set(zip(deep.tolist(), direct.tolist(), normed.tolist(), strict=True))
    ):
        part = np.flatnonzero((deep == size) & (direct == rounded) & (normed == scaled))
        at, closes = heads[part, None] + np.arange(size), drain[heads[part]]
        how = rounded, scaled
        products += _columns(reads, part, inputs[at], tile[at], closes, j[heads[part]], how)
    some = wide | (fans > 1)
    folded, rest = written_back(reads, drain[begins][some], j[begins][some], first[some], fans[some])
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
    reads: Reads,
    part: Int[np.ndarray, " parts"],
    inputs: Int[np.ndarray, "parts depth 2"],
    tile: Int[np.ndarray, "parts depth"],
    drain: Int[np.ndarray, " parts"],
    line: Int[np.ndarray, " parts"],
    how: tuple[bool, bool],
) -> list[Items]:
    """Items of parts of equal depth: `inputs` written lines, `tile` image entries; how: rounded, normed."""
    flow, depth, (rounded, normed) = reads.flow, tile.shape[1], how
    statistic = reads.line(0, drain, 0)[:, None] if normed else np.zeros((len(part), 0), np.int64)
    key = np.concatenate([flow.level[drain][:, None], statistic, inputs.reshape(len(part), -1)], axis=1)
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
        others = [np.swapaxes(tile[which], 1, 2).reshape(len(which), -1)]
        result = Result(Pool.WIDE, size, len(flow.lines.row) + part[which])
        if rounded:
            others.append(reads.entry(drain[which], line[which]))
            result = Result(Pool.F32, size, flow.result[drain[which]] + line[which])
        lines = [statistic[first], inputs[first].reshape(len(which), -1)]
        shape = DenseShape(depth=depth, lines=size, rounded=rounded, normed=normed)
        out.append(reads.items(dense, drain[first], lines=lines, others=others, out=(result,), params=shape))
    return out


def dense(k: DenseShape, env: Env, pools: Pools, t: Int[Array, "items width"]) -> Pools:
    """All rows times `lines` columns of `depth` tiles each, side by side: one product, exact in any order."""
    inputs, statistic = 2 * k.depth, t[:, 0]
    t = t[:, 1:] if k.normed else t
    x = halves(values_of(take(pools.f16, t[:, :inputs])))
    rows = jnp.concatenate([x.high, x.low], axis=1) * 256
    tiles = take(env.image.tiles, t[:, inputs : inputs + k.depth * k.lines])
    tiles = tiles.reshape(len(t), k.depth, k.lines, TILE_ROWS, F32_LANES)
    codes = jnp.swapaxes(tiles, 2, 3).reshape(len(t), k.depth * TILE_ROWS, k.lines * F32_LANES)
    part = Wide(*jnp.split(plus0(rows @ decode(codes)), 2, axis=1))
    if not k.rounded:
        return Pools(wide=wide_lines_of(part))
    scale = take(env.image.scales, t[:, -k.lines :]).reshape(len(t), 1, -1)
    y = numerics.scale_wide(part, scale)
    if k.normed:
        y = deferred.scale_rows(y, take(pools.f32, statistic)[..., :1])
    return Pools(f32=lines_of(y, F32_LANES))
