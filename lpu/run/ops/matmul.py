"""Products in the order of the schedule, tile by tile, and the parts of an output line added up and rounded.

With few rows the tiles are what costs, so they are taken in cache-sized batches as they come; with many rows
`lpu/run/ops/dense.py` takes whole columns. MM and WB rows are no items of one builder: tiles of many MM rows
meet in one batch, and a write-back adds up the parts that its line has fallen into.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float64, Int, UInt8

from compiler.program.instructions.experts import ExpertTileKernel
from compiler.program.instructions.matmul import WIDE_PER_F32, ReduceKernel, TreeKernel, WriteBackKernel
from compiler.program.isa import F32_LANES, OF_EXPERTS, PRODUCTS, TILE_ROWS, Op
from lpu.link.link import Dataflow
from lpu.run.image import ImagePlan
from lpu.run.ops.items import Executed, Items, Reads, Result, Rows, Static
from lpu.run.pools import Env, Pool, Pools, take, values_of
from models.contract import deferred, numerics
from models.contract.formats import F16, F64, Wide, halves
from models.contract.tree import of_nodes

TILE_BATCH = 32  # tiles of 320 x 80 per step: 0.8 MB of codes, 6.5 MB decoded
LEAST_PARTS = 2  # that a sum is padded to with zeros, so that most programs need one executable
Table = Int[Array, "items width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """All tiles multiplied, in order of level and output line: each two fp16 lines and a tile.

    Where a step chooses experts, before the tile stands a slot's line: then it is a line of a stack.
    Tiles of one output line of one write-back that fall into one batch share a `part`. `folded` pairs a
    written wide line with the only part that it is made of, in order of `fold_level`.
    """

    table: Int[np.ndarray, "tiles width"]
    level: Int[np.ndarray, " tiles"]
    part: Int[np.ndarray, " tiles"]
    folded: Int[np.ndarray, "folded 2"]
    fold_level: Int[np.ndarray, " folded"]
    parts: int


def products(flow: Dataflow, plan: ImagePlan) -> tuple[Products, list[Items]]:
    """The tiles in batches of `TILE_BATCH`, and the write-backs that add up their parts."""
    reads, columns = Reads(flow, plan), flow.columns
    rows, j = reads.spread(np.flatnonzero(np.isin(columns.op, PRODUCTS)), 1)
    drain, level = flow.drain[rows], flow.level[rows]
    order = np.lexsort((j, drain, level))
    rows, j, drain, level = rows[order], j[order], drain[order], level[order]
    begins = np.searchsorted(level, level)
    slot = np.arange(len(rows)) - begins
    fresh = (np.diff(drain, prepend=-1) != 0) | (np.diff(j, prepend=-1) != 0) | (slot % TILE_BATCH == 0)
    part = np.cumsum(fresh) - 1
    lines = [reads.line(0, rows, 0), reads.line(0, rows, 1)]
    if chooses_experts(flow):
        lines.append(np.where(np.isin(columns.op[rows], OF_EXPERTS), reads.line(1, rows, 0), -1))
    table = np.stack([*lines, tile_of(reads, rows, j)], axis=-1)
    heads = np.flatnonzero(fresh)
    back, line = drain[heads], j[heads]
    first = np.flatnonzero((np.diff(back, prepend=-1) != 0) | (np.diff(line, prepend=-1) != 0))
    fans = np.diff(np.append(first, len(heads)))
    folded, out = written_back(reads, back[first], line[first], first, fans)
    return (
        Products(
            table=table,
            level=level,
            part=part,
            folded=folded,
            fold_level=level[np.searchsorted(part, folded[:, 1] - len(flow.lines.row))],
            parts=len(heads),
        ),
        out,
    )


def chooses_experts(flow: Dataflow) -> bool:
    """Whether a step chooses tiles of experts by its slots."""
    used = np.unique(flow.columns.aux[np.isin(flow.columns.op, OF_EXPERTS)]).tolist()
    return any(isinstance(k := flow.kernels[aux], ExpertTileKernel) and k.expert < 0 for aux in used)


def tile_of(
    reads: Reads, rows: Int[np.ndarray, " tiles"], j: Int[np.ndarray, " tiles"]
) -> Int[np.ndarray, " tiles"]:
    """The entry of line j of each product's tile; where the step chooses the expert, a line of the stack."""
    out = reads.entry(rows, j)
    own = np.flatnonzero(np.isin(reads.flow.columns.op[rows], OF_EXPERTS))
    kernels = reads.flow.kernels
    expert = np.array([k.expert if isinstance(k, ExpertTileKernel) else -1 for k in kernels] or [-1])
    which, line = expert[reads.flow.columns.aux[rows[own]]], reads.entry(rows[own], 0) + j[own]
    out[own] = np.where(which >= 0, reads.plan.stacks[line, np.maximum(which, 0)], line)
    return out


def mm(k: None, env: Env, pools: Pools, t: Int[Array, "tiles 4"]) -> Pools:
    """Tiles of 320 x 80 in cache-sized batches; the products of one output line are added within the batch.

    Exact in any order: at most 32 tiles of 320 rows meet in one sum (`numerics.EXACT_K` is 37,449).
    """
    return _multiplied(env, pools, t, t[:, 2])


def xmm(k: None, env: Env, pools: Pools, t: Int[Array, "tiles 5"]) -> Pools:
    """The same, where column 2 is a slot's line: it names the expert whose tile of a stack is taken."""
    slot = t[:, 2]
    expert = take(pools.f32, slot)[:, 0, 1].astype(jnp.int32)
    chosen = env.image.stacks[jnp.where(slot > 0, t[:, 3], 0), expert]
    return _multiplied(env, pools, t, jnp.where(slot > 0, chosen, t[:, 3]))


def _multiplied(env: Env, pools: Pools, t: Int[Array, "tiles width"], tile: Int[Array, " tiles"]) -> Pools:
    x = halves(values_of(take(pools.f16, t[:, :2]))[:, None])
    high = jnp.arange(2)[:, None, None] == 0
    rows = jnp.where(high, x.high, x.low).reshape(len(t), -1, TILE_ROWS) * 256
    part = jnp.einsum("trk,tkn->trn", rows, decode(take(env.image.tiles, tile)))
    same = (t[:, -1, None] == jnp.arange(len(t), dtype=t.dtype)).astype(F64)
    total = jnp.einsum("ts,trn->srn", same, part)
    return Pools(wide=total.reshape(len(t), 2, -1, F32_LANES))


def decode(codes: UInt8[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """`formats.decode_small` in fewer operations: the shifted sign leaves one bit to clear."""
    signed = lax.bitcast_convert_type(codes, jnp.int8).astype(jnp.int16)
    return lax.bitcast_convert_type((signed << 7) & jnp.int16(~0x4000), F16).astype(F64)


def left_wide(flow: Dataflow, rows: Rows) -> Bool[np.ndarray, " rows"]:
    """Which of these write-backs leave a wide partial."""
    wide = [isinstance(kernel, WriteBackKernel) and kernel.wide for kernel in flow.kernels]
    return np.array(wide, bool)[flow.columns.aux[rows]]


def is_normed(flow: Dataflow, rows: Rows) -> Bool[np.ndarray, " rows"]:
    """Which of these write-backs multiply by a statistic."""
    normed = [isinstance(kernel, WriteBackKernel) and kernel.normed for kernel in flow.kernels]
    return np.array(normed, bool)[flow.columns.aux[rows]]


def written_back(
    reads: Reads,
    row: Int[np.ndarray, " lines"],
    line: Int[np.ndarray, " lines"],
    first: Int[np.ndarray, " lines"],
    fans: Int[np.ndarray, " lines"],
) -> tuple[Int[np.ndarray, "folded 2"], list[Items]]:
    """(`folded` of Products, items that add up parts): each line of a write-back has `fans` from `first`."""
    flow = reads.flow
    partial = left_wide(flow, row)
    written = len(flow.lines.row)
    alone = partial & (fans == 1)
    folded = np.stack([flow.result[row[alone]] + WIDE_PER_F32 * line[alone], written + first[alone]], axis=-1)
    size = 1 << np.ceil(np.log2(np.maximum(fans, 1))).astype(np.int64)
    normed = is_normed(flow, row)
    keys = zip(partial[~alone].tolist(), normed[~alone].tolist(), size[~alone].tolist(), strict=True)
    out: list[Items] = []
    for wide, scaled, fan in sorted(set(keys)):
        mine = np.flatnonzero((partial == wide) & (normed == scaled) & (size == fan) & ~alone)
        each = np.arange(fan)
        parts = np.where(each < fans[mine, None], written + first[mine, None] + each, -1)
        statistic = reads.line(0, row[mine], 0) if scaled else None
        out.append(_added(reads, row[mine], line[mine], parts, statistic, wide))
    return folded, out


def _added(
    reads: Reads,
    row: Int[np.ndarray, " items"],
    line: Int[np.ndarray, " items"],
    parts: Int[np.ndarray, "items parts"],
    statistic: Int[np.ndarray, " items"] | None,
    wide: bool,
) -> Items:
    """Items that add up wide parts of line `line` of a row, and round the sum unless it stays wide.

    statistic: the written line of what a rounded sum is multiplied by.
    """
    first = reads.flow.result[row]
    spare = max(LEAST_PARTS - parts.shape[1], 0)
    parts = np.pad(parts, ((0, 0), (0, spare)), constant_values=-1)
    if wide:
        result = Result(Pool.WIDE, 1, first + WIDE_PER_F32 * line)
        return reads.items(fold, row, lines=[parts], out=(result,))
    normed = [] if statistic is None else [statistic]
    return reads.items(
        round_sum if statistic is None else round_normed,
        row,
        lines=[parts, *normed],
        others=[reads.entry(row, line)],
        out=(Result(Pool.F32, 1, first + line),),
    )


def _red(at: Reads, rows: Rows, s: Static[ReduceKernel]) -> Items:
    row, j = at.spread(rows, 1)
    count = at.flow.columns.n[row][:, None]
    offsets = WIDE_PER_F32 * (j[:, None] + count * np.arange(s.kernel.parts))
    statistic = at.line(1, row, 0) if s.kernel.normed else None
    return _added(at, row, j, at.line(0, row[:, None], offsets), statistic, s.kernel.wide)


def _tree(at: Reads, rows: Rows, s: Static[TreeKernel]) -> Items:
    row, j = at.spread(rows, 1)
    offsets = j[:, None] + at.flow.columns.n[row][:, None] * np.arange(len(s.kernel.sizes))
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(tree, row, lines=[at.line(0, row[:, None], offsets)], out=out, params=s.kernel)


def tree(k: TreeKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """Nodes of the contract's tree added up."""
    nodes = take(pools.f32, t)
    return Pools(f32=of_nodes([nodes[:, i] for i in range(nodes.shape[1])], k.sizes))


def total_of(wide: Float64[Array, "items parts 2 batch lanes"]) -> Wide:
    """The parts of each item added up, [items, batch, lanes], at any depth of K."""
    part = Wide(wide[:, :, 0], wide[:, :, 1])
    if wide.shape[1] == 1:
        return Wide(part.high[:, 0], part.low[:, 0])
    part = numerics.carry(part)
    return Wide(part.high.sum(axis=1), part.low.sum(axis=1))


def round_sum(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """Wide parts added up, scaled and rounded once."""
    return Pools(f32=_rounded(env, pools, t[:, :-1], t[:, -1]))


def _rounded(env: Env, pools: Pools, added: Table, scale: Int[Array, " items"]) -> Array:
    factor = take(env.image.scales, scale)[:, None]
    return numerics.scale_wide(total_of(take(pools.wide, added)), factor)


def round_normed(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """The same, times the statistic of each row."""
    rounded = _rounded(env, pools, t[:, :-2], t[:, -1])
    return Pools(f32=deferred.scale_rows(rounded, take(pools.f32, t[:, -2])[..., :1]))


def fold(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """Wide parts added up, left wide."""
    return Pools(wide=jnp.stack(total_of(take(pools.wide, t)), axis=1))


EXECUTED = (
    Executed(op=Op.MM),
    Executed(op=Op.XMM),
    Executed(op=Op.FETCHX),
    Executed(op=Op.XMF),
    Executed(op=Op.WB),
    Executed(op=Op.RED, build=_red),
    Executed(op=Op.TREE, build=_tree),
)
