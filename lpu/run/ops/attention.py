"""Attention: each builder of items, and below it the kernel that computes them.

KV is read as the last step left it, with the lines that this step appends put in their place; KVW rows are
no items, the executor appends what they name when the step ends. The arithmetic is that of
`models/contract/numerics.py`.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float64, Int, Shaped

from compiler.program.instructions.attention import AttentionKernel, merged_lines, part_lines, score_lines
from compiler.program.isa import F16_LANES, F32_LANES, Op, ceil_div
from lpu.run.ops.items import Executed, Items, Reads, Result, Rows, Static
from lpu.run.pools import Env, Pool, Pools, heads_in, lines_of, take, values_of, wide_lines_of
from models.contract import numerics
from models.contract.formats import F32, F64, I64, Wide, rn8

Table = Int[Array, "items width"]
Attention = Static[AttentionKernel]


def _part_rows(k: AttentionKernel) -> int:
    """Wide pool rows of a partial of all heads of the group."""
    return int(ceil_div(k.group * k.head_dim, F32_LANES))


def _head_rows(k: AttentionKernel) -> int:
    """Lines of fp16 heads of the group."""
    return int(ceil_div(k.group * k.head_dim, F16_LANES))


def _chunk(at: Reads, rows: Rows, operand: int) -> tuple[Int[np.ndarray, "rows lines"], list[Rows]]:
    """(lines that the step appends to a row's region; its region, stripe and chunk); operand 0: K, 1: V."""
    region = at.flow.region[rows]
    append = at.flow.append[region]
    stripe = np.maximum(at.flow.columns.src3[append], 0)
    return at.block(operand, append), [region, stripe, at.flow.columns.n[rows]]


def _cached(
    s: Attention,
    env: Env,
    store: Shaped[Array, "regions sequences capacity head_dim"],
    pools: Pools,
    appended: Int[Array, "items lines"],
    chunk: Int[Array, "items 3"],
) -> tuple[Shaped[Array, "items taken chunk head_dim"], Int[Array, "items chunk"]]:
    """(tokens of one chunk with those that this step appends, their positions); `chunk` as `_chunk` gives it.

    Of every `stripes` * 80 tokens the region holds the 80 of its stripe.
    """
    head_dim, sequences, size = store.shape[-1], s.kernel.sequences, s.kernel.chunk
    region, stripe, index = chunk[:, 0], chunk[:, 1], chunk[:, 2]
    zero = jnp.zeros_like(region)
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(1, 2, 3), collapsed_slice_dims=(0,), start_index_map=(0, 1, 2, 3)
    )
    start = jnp.stack([region, zero + env.sequence, index * size, zero], axis=-1)
    sizes = (1, sequences, size, head_dim)
    old = lax.gather(store, start, numbers, sizes, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
    new = values_of(take(pools.f16, appended))[..., :head_dim]
    new = rn8(new.astype(F32)) if store.dtype == jnp.uint8 else new
    place = index[:, None] * size + jnp.arange(size, dtype=chunk.dtype)
    position = (place // F32_LANES * s.kernel.stripes + stripe[:, None]) * F32_LANES + place % F32_LANES
    new = new.reshape(len(chunk), sequences, -1, head_dim)
    at = env.positions.reshape(sequences, -1, 1)
    here = position[:, None, None] == at  # [items, sequences, rows, chunk]
    if new.shape[2] > 1:
        new = jnp.take_along_axis(new, jnp.argmax(here, axis=2)[..., None], axis=2)
    return jnp.where(here.any(axis=2)[..., None], new, old), position


def _qk(at: Reads, rows: Rows, s: Attention) -> Items:
    appended, chunk = _chunk(at, rows, 0)
    out = (Result(Pool.F32, score_lines(s.kernel), at.flow.result[rows]),)
    return at.items(qk, rows, lines=[at.block(0, rows), appended], others=chunk, out=out, params=s)


def qk(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """Scores of one chunk: rows of one sequence stand beside the heads of a group and read the same keys."""
    k, lines = s.kernel, _head_rows(s.kernel)
    q = heads_in(pools.f16, t[:, :lines], k.group, k.head_dim)
    items, batch, group, head_dim = q.shape
    keys, position = _cached(s, env, env.kv.keys[s.store], pools, t[:, lines:-3], t[:, -3:])
    scores = numerics.attention_scores(q.reshape(items, k.sequences, -1, head_dim), keys)
    seen = position[:, None] <= env.positions[:, None]
    scores = jnp.where(seen[:, :, None], scores.reshape(items, batch, group, -1), F32(numerics.MASKED))
    return Pools(f32=lines_of(scores.reshape(items, batch, -1), F32_LANES))


def _score_block(
    k: AttentionKernel, pool: Shaped[Array, "rows batch 80"] | None, first: Int[Array, "*blocks"]
) -> Shaped[Array, "*blocks group words batch 80"]:
    """The score lines of blocks that begin at the rows `first`."""
    shape = (k.group, k.chunk // F32_LANES)
    rows = first[..., None] + jnp.arange(shape[0] * shape[1], dtype=first.dtype)
    block = take(pool, rows)
    return block.reshape(*first.shape, *shape, *block.shape[-2:])


def _smax(at: Reads, rows: Rows, s: Attention) -> Items:
    out = (Result(Pool.F32, 1, at.flow.result[rows]),)
    firsts = at.block(0, rows, score_lines(s.kernel))
    return at.items(smax, rows, lines=[firsts], out=out, params=s)


def smax(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """The largest score of each head over n chunks."""
    peak = _score_block(s.kernel, pools.f32, t).max(axis=(1, 3, 5))
    return Pools(f32=lines_of(jnp.swapaxes(peak, 1, 2), F32_LANES))


def _exp(at: Reads, rows: Rows, s: Attention) -> Items:
    size, result = score_lines(s.kernel), at.flow.result[rows]
    out = (Result(Pool.F32, size, result), Result(Pool.WIDE, 1, result + size))
    return at.items(exp, rows, lines=[at.line(0, rows, 0), at.block(1, rows)], out=out, params=s)


def exp(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """Softmax weights of one chunk and their sum by head."""
    scores = _score_block(s.kernel, pools.f32, t[:, 0])
    peak = jnp.swapaxes(take(pools.f32, t[:, 1:])[..., : s.kernel.group].max(axis=1), 1, 2)
    weights = numerics.expq(scores - peak[:, :, None, :, None], s.kernel.frac)
    total = jnp.swapaxes(weights.sum(axis=(2, 4)), 1, 2).astype(F64)
    rows = weights.astype(F32).reshape(-1, *weights.shape[-2:])
    return Pools(f32=rows, wide=wide_lines_of(Wide(total, jnp.zeros_like(total))))


def _pv(at: Reads, rows: Rows, s: Attention) -> Items:
    appended, chunk = _chunk(at, rows, 1)
    out = (Result(Pool.WIDE, _part_rows(s.kernel), at.flow.result[rows]),)
    return at.items(pv, rows, lines=[at.line(0, rows, 0), appended], others=chunk, out=out, params=s)


def pv(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """Weights of one chunk times its values."""
    k = s.kernel
    weights = jnp.moveaxis(_score_block(k, pools.f32, t[:, 0]), 3, 1).astype(jnp.int32)
    values, _ = _cached(s, env, env.kv.values[s.store], pools, t[:, 1:-3], t[:, -3:])
    items, batch, group = weights.shape[:3]
    part = numerics.attention_values(weights.reshape(*values.shape[:2], -1, k.chunk), values)
    flat = (items, batch, group * k.head_dim)
    return Pools(wide=wide_lines_of(Wide(part.high.reshape(flat), part.low.reshape(flat))))


def _partials(at: Reads, rows: Rows, s: Attention) -> list[Int[np.ndarray, "rows n"]]:
    """The first line of n partials, and n lines of sums."""
    return [at.block(0, rows, part_lines(s.kernel)), at.block(1, rows)]


def _aout(at: Reads, rows: Rows, s: Attention) -> Items:
    out = (Result(Pool.F16, _head_rows(s.kernel), at.flow.result[rows]),)
    return at.items(aout, rows, lines=_partials(at, rows, s), out=out, params=s)


def aout(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """Heads of n partials and their sums."""
    return _finished(s.kernel, *_summed(s, pools, t))


def _asum(at: Reads, rows: Rows, s: Attention) -> Items:
    out = (Result(Pool.WIDE, _part_rows(s.kernel) + 1, at.flow.result[rows]),)
    return at.items(asum, rows, lines=_partials(at, rows, s), out=out, params=s)


def asum(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """N partials and their sums, each added up."""
    part, total = _summed(s, pools, t)
    rows = jnp.concatenate([part, total[:, None]], axis=1)
    return Pools(wide=rows.reshape(-1, *rows.shape[2:]))


def _aend(at: Reads, rows: Rows, s: Attention) -> Items:
    out = (Result(Pool.F16, _head_rows(s.kernel), at.flow.result[rows]),)
    return at.items(aend, rows, lines=[at.block(0, rows, merged_lines(s.kernel))], out=out, params=s)


def aend(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """Heads of n results of `asum`."""
    rows = t[..., None] + jnp.arange(_part_rows(s.kernel) + 1, dtype=t.dtype)
    merged = take(pools.wide, rows).sum(axis=1)
    return _finished(s.kernel, merged[:, :-1], merged[:, -1])


def _summed(
    s: Attention, pools: Pools, t: Table
) -> tuple[Float64[Array, "items lines 2 batch 80"], Float64[Array, "items 2 batch 80"]]:
    """(partials, sums of weights) added over n chunks."""
    rows = t[:, : s.n, None] + jnp.arange(_part_rows(s.kernel), dtype=t.dtype)
    return take(pools.wide, rows).sum(axis=1), take(pools.wide, t[:, s.n :]).sum(axis=1)


def _finished(
    k: AttentionKernel,
    part: Float64[Array, "items lines 2 batch 80"],
    total: Float64[Array, "items 2 batch 80"],
) -> Pools:
    """The heads of partials and sums as `_summed` gives them."""
    width = k.group * k.head_dim
    part = jnp.moveaxis(part, 1, 3)
    part = part.reshape(*part.shape[:3], -1)[..., :width].reshape(*part.shape[:3], k.group, k.head_dim)
    sums = total[:, 0, :, : k.group].astype(I64)
    out = numerics.attention_out(Wide(part[:, 0], part[:, 1]), sums)
    return Pools(f16=lines_of(out.reshape(*out.shape[:2], -1), F16_LANES))


def _weights_are_exact(k: AttentionKernel) -> tuple[tuple[str, int, int], ...]:
    """Weights lie in f32 rows as numbers, and a line has a lane per head of the group."""
    return (("frac", k.frac, 24), ("group", k.group, F32_LANES))


EXECUTED = (
    Executed(op=Op.KVW),
    Executed(op=Op.QK, build=_qk),
    Executed(op=Op.SMAX, build=_smax, by_count=True),
    Executed(op=Op.EXP, build=_exp, limits=_weights_are_exact),
    Executed(op=Op.PV, build=_pv),
    Executed(op=Op.AOUT, build=_aout, by_count=True),
    Executed(op=Op.ASUM, build=_asum, by_count=True),
    Executed(op=Op.AEND, build=_aend, by_count=True),
)
