"""One function per kind of item: gathers operands from the pools and the image, returns new pool rows.

A line of all sequences is one pool row: fp16 [batch, 160], f32 [batch, 80], wide [2, batch, 80] (high, low).
Row 0 of every pool is zero. Integers below 2^24 (softmax weights, vocabulary columns) lie in f32 rows as
numbers, sums of softmax weights in the high part of a wide row. The arithmetic is that of
`models/contract/numerics.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from compiler.program.isa import F16_LANES, F32_LANES, TILE_ROWS, ceil_div
from lpu.run.image import Image
from models.contract import numerics
from models.contract.formats import F16, F32, F64, I64, Wide, add32, halves, plus0, rn8, rn16

Params = dict[str, Any]


class KV(NamedTuple):
    """The cache, per shape of attention: keys and values [regions, sequences, capacity, head_dim]."""

    keys: tuple[Array, ...]
    values: tuple[Array, ...]


class Env(NamedTuple):
    """What stays as it is during one step. sequence: the first of the cache's that the step takes."""

    image: Image
    kv: KV
    tokens: Array
    positions: Array
    sequence: Array


class Pools(NamedTuple):
    """Everything computed so far in this step, one row per line; or the new rows of one kernel."""

    f16: Array | None = None
    f32: Array | None = None
    wide: Array | None = None


def take(pool: Array | None, index: Array) -> Array:
    """Rows of a pool."""
    assert pool is not None
    return pool.at[index].get(mode="promise_in_bounds")


def _lanes(lines: Array) -> Array:
    """[items, lines, batch, lanes] -> [items, batch, lines * lanes]."""
    items, count, batch, lanes = lines.shape
    return jnp.moveaxis(lines, 1, 2).reshape(items, batch, count * lanes)


def _lines(x: Array, lanes: int) -> Array:
    """[items, batch, width] -> rows [items * lines, batch, lanes], padded with zeros."""
    items, batch, width = x.shape
    count = int(ceil_div(width, lanes))
    x = jnp.pad(x, ((0, 0), (0, 0), (0, count * lanes - width)))
    return jnp.moveaxis(x.reshape(items, batch, count, lanes), 2, 1).reshape(-1, batch, lanes)


def _wide_lines(part: Wide) -> Array:
    """Wide [items, batch, width] -> rows [items * lines, 2, batch, 80]."""
    return jnp.stack([_lines(part.high, F32_LANES), _lines(part.low, F32_LANES)], axis=1)


def _embed(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    columns = take(env.image.columns, t[:, 0])
    rows = env.image.tables[k["tensor"]][env.tokens]
    lanes = jnp.where(columns >= 0, rows[:, jnp.maximum(columns, 0)], F16(0))
    return Pools(f32=jnp.swapaxes(lanes, 0, 1).astype(F32))


def _rstat(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    r = numerics.rms_stat(_lanes(take(pools.f32, t)), k["width"], k["eps"])
    return Pools(f32=_lines(r[..., None], F32_LANES))


def _norm(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    x, r = _lanes(take(pools.f32, t[:, :2])), take(pools.f32, t[:, 2])[..., :1]
    gain = take(env.image.gains, t[:, 3:]).reshape(-1, 1, F16_LANES)
    return Pools(f16=numerics.rms_apply(x, r, gain))


def _heads(pool: Array | None, t: Array, n: int, head_dim: int) -> Array:
    lanes = _lanes(take(pool, t))
    return lanes[..., : n * head_dim].reshape(*lanes.shape[:2], n, head_dim)


def _hnorm(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    words = int(ceil_div(k["head_dim"], F32_LANES))
    x = _heads(pools.f32, t[:, :-words], k["n"], k["head_dim"])
    gain = take(env.image.gains, t[:, -words:]).reshape(len(t), 1, 1, -1)[..., : k["head_dim"]]
    y = numerics.rms_apply(x, numerics.rms_stat(x, k["head_dim"], k["eps"])[..., None], gain)
    return Pools(f16=_lines(y.reshape(*y.shape[:2], -1), F16_LANES))


def _rope(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    x = _heads(pools.f32 if k["input"] == "f32" else pools.f16, t, k["n"], k["head_dim"])
    angles = env.image.angles[k["tensor"]][env.positions]
    y = rn16(numerics.rope(x, angles[:, None]))
    return Pools(f16=_lines(y.reshape(*y.shape[:2], -1), F16_LANES))


def _cast(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    return Pools(f16=rn16(_lanes(take(pools.f32, t))))


def _cached(k: Params, env: Env, store: Array, pools: Pools, t: Array) -> tuple[Array, Array]:
    """(tokens of one chunk [items, sequences, chunk, head_dim] with this step's appended, their positions).

    `t` holds region, stripe, chunk, and the lines of the appended head. Of every `stripes` * 80 tokens the
    region holds the 80 of its stripe.
    """
    head_dim, sequences = store.shape[-1], k["sequences"]
    chunk, zero = k["chunk"], jnp.zeros_like(t[:, 0])
    sizes = (1, sequences, chunk, head_dim)
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(1, 2, 3), collapsed_slice_dims=(0,), start_index_map=(0, 1, 2, 3)
    )
    start = jnp.stack([t[:, 0], zero + env.sequence, t[:, 2] * chunk, zero], axis=-1)
    old = lax.gather(store, start, numbers, sizes, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
    new = _lanes(take(pools.f16, t[:, 3:]))[..., :head_dim]
    new = rn8(new.astype(F32)) if store.dtype == jnp.uint8 else new
    place = t[:, 2, None] * chunk + jnp.arange(chunk, dtype=t.dtype)
    position = (place // F32_LANES * k["stripes"] + t[:, 1, None]) * F32_LANES + place % F32_LANES
    new = new.reshape(len(t), sequences, -1, head_dim)
    at = env.positions.reshape(sequences, -1, 1)
    here = position[:, None, None] == at  # [items, sequences, rows, chunk]
    if new.shape[2] > 1:
        new = jnp.take_along_axis(new, jnp.argmax(here, axis=2)[..., None], axis=2)
    return jnp.where(here.any(axis=2)[..., None], new, old), position


def _qk(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    """Rows of one sequence stand beside the heads of a group: all of them read the same keys."""
    lines = int(ceil_div(k["group"] * k["head_dim"], F16_LANES))
    q = _heads(pools.f16, t[:, :lines], k["group"], k["head_dim"])
    items, batch, group, head_dim = q.shape
    keys, position = _cached(k, env, env.kv.keys[k["store"]], pools, t[:, lines:])
    scores = numerics.attention_scores(q.reshape(items, k["sequences"], -1, head_dim), keys)
    seen = position[:, None] <= env.positions[:, None]
    scores = jnp.where(seen[:, :, None], scores.reshape(items, batch, group, -1), F32(numerics.MASKED))
    return Pools(f32=_lines(scores.reshape(items, batch, -1), F32_LANES))


def _score_block(k: Params, pool: Array | None, first: Array) -> Array:
    """[..., group, chunk / 80, batch, 80] of blocks that begin at the rows `first`."""
    shape = (k["group"], k["chunk"] // F32_LANES)
    rows = first[..., None] + jnp.arange(shape[0] * shape[1], dtype=first.dtype)
    block = take(pool, rows)
    return block.reshape(*first.shape, *shape, *block.shape[-2:])


def _smax(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    peak = _score_block(k, pools.f32, t).max(axis=(1, 3, 5))
    return Pools(f32=_lines(jnp.swapaxes(peak, 1, 2), F32_LANES))


def _exp(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    scores = _score_block(k, pools.f32, t[:, 0])
    peak = jnp.swapaxes(take(pools.f32, t[:, 1:])[..., : k["group"]].max(axis=1), 1, 2)
    weights = numerics.expq(scores - peak[:, :, None, :, None], k["frac"])
    total = jnp.swapaxes(weights.sum(axis=(2, 4)), 1, 2).astype(F64)
    rows = weights.astype(F32).reshape(-1, *weights.shape[-2:])
    return Pools(f32=rows, wide=_wide_lines(Wide(total, jnp.zeros_like(total))))


def _pv(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    weights = jnp.moveaxis(_score_block(k, pools.f32, t[:, 0]), 3, 1).astype(jnp.int32)
    values, _ = _cached(k, env, env.kv.values[k["store"]], pools, t[:, 1:])
    items, batch, group = weights.shape[:3]
    part = numerics.attention_values(weights.reshape(*values.shape[:2], -1, k["chunk"]), values)
    flat = (items, batch, group * k["head_dim"])
    return Pools(wide=_wide_lines(Wide(part.high.reshape(flat), part.low.reshape(flat))))


def _aout(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    return _finished(k, *_summed(k, pools, t))


def _asum(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    part, total = _summed(k, pools, t)
    rows = jnp.concatenate([part, total[:, None]], axis=1)
    return Pools(wide=rows.reshape(-1, *rows.shape[2:]))


def _aend(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    count = int(ceil_div(k["group"] * k["head_dim"], F32_LANES)) + 1
    merged = take(pools.wide, t[..., None] + jnp.arange(count, dtype=t.dtype)).sum(axis=1)
    return _finished(k, merged[:, :-1], merged[:, -1])


def _summed(k: Params, pools: Pools, t: Array) -> tuple[Array, Array]:
    """(partials [items, lines, 2, batch, 80], sums of weights [items, 2, batch, 80]) added over n chunks."""
    n, lines = k["n"], int(ceil_div(k["group"] * k["head_dim"], F32_LANES))
    rows = t[:, :n, None] + jnp.arange(lines, dtype=t.dtype)
    return take(pools.wide, rows).sum(axis=1), take(pools.wide, t[:, n:]).sum(axis=1)


def _finished(k: Params, part: Array, total: Array) -> Pools:
    """The heads of partials and sums as `_summed` gives them."""
    width = k["group"] * k["head_dim"]
    part = jnp.moveaxis(part, 1, 3)
    part = part.reshape(*part.shape[:3], -1)[..., :width].reshape(*part.shape[:3], k["group"], k["head_dim"])
    sums = total[:, 0, :, : k["group"]].astype(I64)
    out = numerics.attention_out(Wide(part[:, 0], part[:, 1]), sums)
    return Pools(f16=_lines(out.reshape(*out.shape[:2], -1), F16_LANES))


def _mm(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    """Tiles of 320 x 80 in cache-sized batches; the products of one output line are added within the batch.

    Exact in any order: at most 32 tiles of 320 rows meet in one sum (`numerics.EXACT_K` is 37,449).
    """
    x = halves(_lanes(take(pools.f16, t[:, :2]))[:, None])
    high = jnp.arange(2)[:, None, None] == 0
    rows = jnp.where(high, x.high, x.low).reshape(len(t), -1, TILE_ROWS) * 256
    part = jnp.einsum("trk,tkn->trn", rows, decode(take(env.image.tiles, t[:, 2])))
    same = (t[:, 3, None] == jnp.arange(len(t), dtype=t.dtype)).astype(F64)
    total = jnp.einsum("ts,trn->srn", same, part)
    return Pools(wide=total.reshape(len(t), 2, -1, F32_LANES))


def _dense(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    """All rows times `lines` columns of `depth` tiles each, side by side: one product, exact in any order."""
    depth, lines, inputs = k["depth"], k["lines"], 2 * k["depth"]
    x = halves(_lanes(take(pools.f16, t[:, :inputs])))
    rows = jnp.concatenate([x.high, x.low], axis=1) * 256
    tiles = take(env.image.tiles, t[:, inputs : inputs + depth * lines])
    tiles = tiles.reshape(len(t), depth, lines, TILE_ROWS, F32_LANES)
    codes = jnp.swapaxes(tiles, 2, 3).reshape(len(t), depth * TILE_ROWS, lines * F32_LANES)
    part = Wide(*jnp.split(plus0(rows @ decode(codes)), 2, axis=1))
    if not k["rounded"]:
        return Pools(wide=_wide_lines(part))
    exponent = take(env.image.exponents, t[:, -lines:]).reshape(len(t), 1, -1)
    return Pools(f32=_lines(numerics.round_wide(part, exponent), F32_LANES))


def decode(codes: Array) -> Array:
    """`formats.decode_small` in fewer operations: the shifted sign leaves one bit to clear."""
    signed = lax.bitcast_convert_type(codes, jnp.int8).astype(jnp.int16)
    return lax.bitcast_convert_type((signed << 7) & jnp.int16(~0x4000), F16).astype(F64)


def total_of(wide: Array) -> Wide:
    """Sum over axis 1 of wide rows [items, parts, 2, batch, 80], at any depth of K."""
    part = Wide(wide[:, :, 0], wide[:, :, 1])
    if wide.shape[1] == 1:
        return Wide(part.high[:, 0], part.low[:, 0])
    part = numerics.carry(part)
    return Wide(part.high.sum(axis=1), part.low.sum(axis=1))


def _round(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    exponent = take(env.image.exponents, t[:, -1])[:, None]
    return Pools(f32=numerics.round_wide(total_of(take(pools.wide, t[:, :-1])), exponent))


def _fold(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    return Pools(wide=jnp.stack(total_of(take(pools.wide, t)), axis=1))


def _add(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    return Pools(f32=add32(take(pools.f32, t[:, 0]), take(pools.f32, t[:, 1])))


def _glu(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    gate, up = (_lanes(take(pools.f32, t[:, i : i + 2])) for i in (0, 2))
    return Pools(f16=numerics.glu(gate, up, k["activation"]))


def _pick(value: Array, column: Array) -> Pools:
    """Rows with the largest value over axis -1 and the lowest column that has it."""
    best = value.max(axis=-1)
    index = jnp.where(value == best[..., None], column, F32(2**24)).min(axis=-1)
    return Pools(f32=_lines(jnp.stack([best, index], axis=-1), F32_LANES))


def _argmax(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    x = _lanes(take(pools.f32, t[:, :-1]))
    column = t[:, -1:] * F32_LANES + jnp.arange(x.shape[-1], dtype=t.dtype)
    column = jnp.broadcast_to(column[:, None], x.shape)
    return _pick(jnp.where(column < k["vocab"], x, -jnp.inf), column.astype(F32))


def _argred(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    x = jnp.moveaxis(take(pools.f32, t)[..., :2], 1, 2)
    return _pick(x[..., 0], x[..., 1])


def _idle(k: Params, env: Env, pools: Pools, t: Array) -> Pools:
    return Pools()


KERNELS: dict[str, Callable[[Params, Env, Pools, Array], Pools]] = {
    "idle": _idle,
    "embed": _embed,
    "rstat": _rstat,
    "norm": _norm,
    "hnorm": _hnorm,
    "rope": _rope,
    "cast": _cast,
    "qk": _qk,
    "smax": _smax,
    "exp": _exp,
    "pv": _pv,
    "aout": _aout,
    "asum": _asum,
    "aend": _aend,
    "mm": _mm,
    "dense": _dense,
    "round": _round,
    "fold": _fold,
    "add": _add,
    "glu": _glu,
    "argmax": _argmax,
    "argred": _argred,
}
