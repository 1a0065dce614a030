"""Attention: each builder of items, and below it the kernel that computes them.

KV is read as the last step left it, with the lines that this step appends put in their place; KVW rows are
no items, the executor appends what they name when the step ends. The arithmetic is that of
`models/contract/block_attention.py`. A node lies as f32 rows of its heads, and one wide row that holds the
sums of weights (high) and the exponents (low), a lane per head.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float16, Float32, Int, Int32, Shaped

from compiler.program.instructions.attention import (
    AttentionKernel,
    LatentAttentionKernel,
    block_number,
    dealt_number,
    node_lines,
    part_lines,
    score_lines,
    weight_lines,
)
from compiler.program.isa import F16_LANES, F32_LANES, Op, ceil_div
from lpu.run.ops.items import Executed, Items, Reads, Result, Rows, Static
from lpu.run.pools import Env, Pool, Pools, heads_in, lines_of, take, values_of, wide_lines_of
from models.contract import block_attention as blocks
from models.contract import numerics
from models.contract.block_attention import Attended
from models.contract.formats import F32, F64, Wide, rn8
from models.contract.functions.curves import softcap
from models.contract.latent_attention import latent_scores
from models.contract.tree import tree

Table = Int[Array, "items width"]
Attention = Static[AttentionKernel]


def _block(
    at: Reads, rows: Rows, operand: int, fetched: bool = False
) -> tuple[Int[np.ndarray, "rows lines"], list[Rows]]:
    """(lines that the step appends to a row's region; its number, block there, block); operand 0: K, 1: V.

    The array of a region has the blocks that DDR5 keeps before its own: a fetched one is that of its copy.
    """
    region = at.flow.region[rows]
    append = at.flow.append[region]
    number = at.numbers[region]
    stripe, local = np.maximum(at.flow.columns.src3[append], 0), at.flow.columns.n[rows]
    kernel = at.flow.kernels[int(at.flow.columns.aux[rows[0]])]
    assert isinstance(kernel, AttentionKernel)
    if fetched:
        copied = at.flow.columns.n[at.flow.lines.row[at.line(1, rows, 0)]]
        return at.block(operand, append), [number, copied, dealt_number(kernel, stripe, local)]
    before = kernel.early // kernel.stripes
    return at.block(operand, append), [number, local + before, block_number(kernel, stripe, local)]


def _cached(
    s: Static[Any],
    env: Env,
    store: Shaped[Array, "regions sequences capacity head_dim"],
    pools: Pools,
    appended: Int[Array, "items lines"],
    block: Int[Array, "items 3"],
) -> tuple[Shaped[Array, "items taken chunk head_dim"], Int[Array, "items taken chunk"]]:
    """(tokens of one block with those that this step appends, their positions); `block` as for `_block`.

    In a ring a block is the last one at its place that the step's positions reach.
    """
    head_dim, sequences, size = store.shape[-1], s.kernel.sequences, s.kernel.chunk
    region, local, number = block[:, 0], block[:, 1], block[:, 2]
    zero = jnp.zeros_like(region)
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(1, 2, 3), collapsed_slice_dims=(0,), start_index_map=(0, 1, 2, 3)
    )
    start = jnp.stack([region, zero + env.sequence, local * size, zero], axis=-1)
    sizes = (1, sequences, size, head_dim)
    old = lax.gather(store, start, numbers, sizes, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
    new = values_of(take(pools.f16, appended))[..., :head_dim]
    new = rn8(new.astype(F32)) if store.dtype == jnp.uint8 else new
    number = jnp.broadcast_to(number[:, None], (len(block), sequences))
    if _turns(s.kernel):
        last = _last_block(s.kernel, env)
        number = last - (last - number) % s.kernel.chunks
    position = number[..., None] * s.kernel.block + jnp.arange(size, dtype=block.dtype)
    new = new.reshape(len(block), sequences, -1, head_dim)
    at = env.positions.reshape(sequences, -1, 1)
    here = position[:, :, None] == at  # [items, sequences, rows, chunk]
    if new.shape[2] > 1:
        new = jnp.take_along_axis(new, jnp.argmax(here, axis=2)[..., None], axis=2)
    return jnp.where(here.any(axis=2)[..., None], new, old), position


def _turns(k: AttentionKernel) -> bool:
    """Whether blocks may take turns at the places of a region, all of which rows read."""
    return k.reach > 0 and k.chunk * k.chunks == k.capacity


def _last_block(k: AttentionKernel, env: Env) -> Int32[Array, " taken"]:
    """The block of the last token that a step appends to each sequence."""
    return env.positions.reshape(k.sequences, -1).max(axis=1) // k.block


def _qk(at: Reads, rows: Rows, s: Attention, fetched: bool = False) -> Items:
    appended, block = _block(at, rows, 0, fetched)
    out = (Result(Pool.F32, score_lines(s.kernel), at.flow.result[rows]),)
    if isinstance(s.kernel, LatentAttentionKernel):
        both = [appended, _block(at, rows, 1)[0]]
        return at.items(latent_qk, rows, lines=[at.block(0, rows), *both], others=block, out=out, params=s)
    return at.items(qk, rows, lines=[at.block(0, rows), appended], others=block, out=out, params=s)


def qk(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """Scores of one block: rows of one sequence stand beside the heads of a group and read the same keys."""
    k, lines = s.kernel, s.kernel.query_lines
    q = heads_in(pools.f16, t[:, :lines], k.group, k.head_dim)
    items, batch, group, head_dim = q.shape
    keys, position = _cached(s, env, env.kv.keys[s.store], pools, t[:, lines:-3], t[:, -3:])
    scores = numerics.attention_scores(q.reshape(items, k.sequences, -1, head_dim), keys, scale=k.scale)
    seen = _seen(k, env, jnp.repeat(position, batch // k.sequences, axis=1))
    scores = jnp.where(seen[:, :, None], scores.reshape(items, batch, group, -1), F32(numerics.MASKED))
    return Pools(f32=lines_of(scores.reshape(items, batch, -1), F32_LANES))


def _seen(
    k: AttentionKernel, env: Env, position: Int[Array, "items batch chunk"]
) -> Bool[Array, "items batch chunk"]:
    """Which tokens each row sees: up to its own or its sequence's last, in its window, in its span.

    None before the first.
    """
    last = env.positions.reshape(k.sequences, -1)
    last = jnp.broadcast_to(last.max(axis=1, keepdims=True), last.shape) if k.whole else last
    own = last.reshape(-1, 1)
    seen = position <= own
    if k.reach:
        seen &= position >= 0
    if k.window:
        seen &= own - position < k.window
    if k.span:
        seen &= position // k.span == own // k.span
    return seen


def _capped(
    k: AttentionKernel, scores: Float32[Array, "items batch group chunk"]
) -> Float32[Array, "items batch group chunk"]:
    """Scores through the soft cap of the kernel; masked ones stay as they are."""
    if not k.cap:
        return scores
    return jnp.where(scores > numerics.MASKED, softcap(scores, k.cap), scores)


def latent_qk(s: Static[LatentAttentionKernel], env: Env, pools: Pools, t: Table) -> Pools:
    """Scores of one block of latents and of the turned lanes of their keys, in one exact sum."""
    k, heads, lines = s.kernel, s.kernel.head_lines, s.kernel.query_lines
    turned_lines = ceil_div(k.turned, F16_LANES)
    keys, ends = t[:, lines : lines + turned_lines], t[:, lines + turned_lines : -3]
    q = _apart(pools, t[:, :heads], k.group, k.head_dim), _apart(pools, t[:, heads:lines], k.group, k.turned)
    items, batch = q[0].shape[:2]
    turned, position = _cached(s, env, env.kv.keys[s.store], pools, keys, t[:, -3:])
    latent, _ = _cached(s, env, env.kv.values[s.store], pools, ends, t[:, -3:])
    rows = [one.reshape(items, k.sequences, -1, one.shape[-1]) for one in q]
    scores = latent_scores(rows[0], rows[1], latent, turned, k.sigma).reshape(items, batch, k.group, -1)
    seen = _seen(k, env, jnp.repeat(position, batch // k.sequences, axis=1))
    scores = jnp.where(seen[:, :, None], scores, F32(numerics.MASKED))
    return Pools(f32=lines_of(scores.reshape(items, batch, -1), F32_LANES))


def _apart(
    pools: Pools, lines: Int[Array, "items lines"], heads: int, lanes: int
) -> Float16[Array, "items batch {heads} {lanes}"]:
    """Heads of which each begins on a line of its own."""
    values = values_of(take(pools.f16, lines))
    return values.reshape(*values.shape[:2], heads, -1)[..., :lanes]


def _by_token(
    k: AttentionKernel, pool: Shaped[Array, "rows batch 80"] | None, first: Int[Array, " items"]
) -> Shaped[Array, "items batch group chunk"]:
    """The scores or weights of blocks that begin at the rows `first`."""
    rows = first[:, None] + jnp.arange(score_lines(k), dtype=first.dtype)
    values = values_of(take(pool, rows))[..., : k.group * k.chunk]
    return values.reshape(*values.shape[:2], k.group, k.chunk)


def _by_head(
    k: AttentionKernel, pool: Shaped[Array, "rows batch 80"] | None, row: Int[Array, " items"]
) -> Shaped[Array, "items batch group"]:
    """The lane of each head of the group in one row."""
    return take(pool, row)[..., : k.group]


def _smax(at: Reads, rows: Rows, s: Attention) -> Items:
    out = (Result(Pool.F32, 1, at.flow.result[rows]),)
    return at.items(smax, rows, lines=[at.line(0, rows, 0)], out=out, params=s)


def smax(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """The largest score of each head in one block."""
    scores = _capped(s.kernel, _by_token(s.kernel, pools.f32, t[:, 0]))
    return Pools(f32=lines_of(scores.max(axis=-1), F32_LANES))


def _exp(at: Reads, rows: Rows, s: Attention) -> Items:
    out = (Result(Pool.F32, weight_lines(s.kernel), at.flow.result[rows]),)
    return at.items(exp, rows, lines=[at.line(0, rows, 0), at.line(1, rows, 0)], out=out, params=s)


def exp(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """Weights of one block over the largest power of two among them, and its exponent by head."""
    k = s.kernel
    scores = _capped(k, _by_token(k, pools.f32, t[:, 0]))
    peak = _by_head(k, pools.f32, t[:, 1])[..., None]
    a = blocks.leaf_exponent(blocks.exponents(peak), peak > numerics.MASKED)
    weights = blocks.weights(
        blocks.exponents(scores), scores > numerics.MASKED, a, blocks.weight_bits(k.block)
    )
    rows = lines_of(weights.astype(F32).reshape(*a.shape[:2], -1), F32_LANES).reshape(
        len(t), -1, a.shape[1], F32_LANES
    )
    last = lines_of(a.astype(F32), F32_LANES)[:, None]
    return Pools(f32=jnp.concatenate([rows, last], axis=1).reshape(-1, *rows.shape[2:]))


def _pv(at: Reads, rows: Rows, s: Attention, fetched: bool = False) -> Items:
    appended, block = _block(at, rows, 1, fetched)
    lines = [at.line(0, rows, 0), at.line(0, rows, score_lines(s.kernel)), appended]
    return at.items(pv, rows, lines=lines, others=block, out=_node(at, rows, s), params=s)


def pv(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """The node of one block: its weights times its values, rounded once, and the sum of its weights."""
    k, bits = s.kernel, blocks.weight_bits(s.kernel.block)
    weights = _by_token(k, pools.f32, t[:, 0]).astype(jnp.int32)
    values, _ = _cached(s, env, env.kv.values[s.store], pools, t[:, 2:-3], t[:, -3:])
    shape = weights.shape[:3]
    of_rows = weights.reshape(*values.shape[:2], -1, k.chunk)
    total, o = blocks.over_bits(of_rows, values, bits)
    a = _by_head(k, pools.f32, t[:, 1]).astype(jnp.int32)
    return _laid(k, Attended(a, total.reshape(shape), o.reshape(*shape, -1)))


def _node(at: Reads, rows: Rows, s: Attention) -> tuple[Result, ...]:
    """Where a node goes: its heads, then the line of exponents and sums."""
    first, size = at.flow.result[rows], part_lines(s.kernel)
    return Result(Pool.F32, size, first), Result(Pool.WIDE, 1, first + size)


def _laid(k: AttentionKernel, node: Attended) -> Pools:
    """The rows of a node [items, batch, group]."""
    items, batch = node.l.shape[:2]
    stats = wide_lines_of(Wide(node.l, node.a.astype(F64)))
    return Pools(f32=lines_of(node.o.reshape(items, batch, -1), F32_LANES), wide=stats)


def _merged(s: Attention, env: Env, pools: Pools, t: Table) -> Attended:
    """The tree over n neighbours, or those of a ring in the context's order; [items, batch, group]."""
    k = s.kernel
    rows = t[:, : s.n].T[..., None] + jnp.arange(part_lines(k), dtype=t.dtype)
    lines = jnp.moveaxis(take(pools.f32, rows), 2, 3)  # [n, items, batch, lines, 80]
    lanes = lines.reshape(*lines.shape[:3], -1)[..., : k.group * k.head_dim]
    stats = take(pools.wide, t[:, s.n :].T)[..., : k.group]
    nodes = Attended(
        stats[:, :, 1].astype(jnp.int32), stats[:, :, 0], lanes.reshape(*lanes.shape[:3], k.group, -1)
    )
    if _turns(k) and s.n == k.chunks:
        nodes = _in_order(k, env, nodes)
    return tree(nodes, blocks.merge)


def _in_order(k: AttentionKernel, env: Env, nodes: Attended) -> Attended:
    """The nodes of a ring where the tree of all blocks has them, absent ones between and around them.

    Any run of blocks lies in two neighbouring subtrees of as many leaves, rounded up to a power of two.
    """
    size = 1 << (k.chunks - 1).bit_length()
    last = jnp.repeat(_last_block(k, env), k.rows // k.sequences)
    first = last - (k.chunks - 1)
    number = first // size * size + jnp.arange(2 * size, dtype=first.dtype)[:, None]  # [leaves, batch]
    known = (number >= first) & (number <= last)

    def placed(x: Array, absent: Array) -> Array:
        index = (number % k.chunks)[(slice(None), None, slice(None), *(None,) * (x.ndim - 3))]
        here = known[(slice(None), None, slice(None), *(None,) * (x.ndim - 3))]
        return jnp.where(here, jnp.take_along_axis(x, index, axis=0), absent[:1])

    return Attended(*map(placed, nodes, blocks.absent(nodes)))


def _nodes(at: Reads, rows: Rows, s: Attention) -> list[Int[np.ndarray, "rows n"]]:
    """The first line of each of n nodes, and its line of exponents and sums."""
    size = node_lines(s.kernel)
    first = np.arange(s.n) * size
    return [at.line(0, rows[:, None], first), at.line(0, rows[:, None], first + part_lines(s.kernel))]


def _merge(at: Reads, rows: Rows, s: Attention) -> Items:
    return at.items(merge, rows, lines=_nodes(at, rows, s), out=_node(at, rows, s), params=s)


def merge(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """One node of n."""
    return _laid(s.kernel, _merged(s, env, pools, t))


def _aout(at: Reads, rows: Rows, s: Attention) -> Items:
    out = (Result(Pool.F16, s.kernel.head_lines, at.flow.result[rows]),)
    sinks = [at.entry(rows, 0)] if s.kernel.sinks else []
    return at.items(aout, rows, lines=_nodes(at, rows, s), others=sinks, out=out, params=s)


def aout(s: Attention, env: Env, pools: Pools, t: Table) -> Pools:
    """Heads of n nodes: their sum over the sum of weights, the sinks' among them."""
    k = s.kernel
    node = _merged(s, env, pools, t[:, :-1] if k.sinks else t)
    if k.sinks:
        logits = jnp.broadcast_to(take(env.image.gains, t[:, -1])[:, None, : k.group], node.l.shape)
        node = blocks.with_sink(node, logits, blocks.weight_bits(k.block))
    out = blocks.out(node)
    if isinstance(k, LatentAttentionKernel):  # each head on lines of its own
        out = jnp.pad(out, ((0, 0),) * 3 + ((0, -k.head_dim % F16_LANES),))
    return Pools(f16=lines_of(out.reshape(*out.shape[:2], -1), F16_LANES))


def _lanes_suffice(k: AttentionKernel) -> tuple[tuple[str, int, int], ...]:
    """A line has a lane per head of the group."""
    return (("group", k.group, F32_LANES),)


EXECUTED = (
    Executed(op=Op.KVW),
    Executed(op=Op.QK, build=_qk),
    Executed(op=Op.FETCH),
    Executed(op=Op.QKF, build=partial(_qk, fetched=True)),
    Executed(op=Op.PVF, build=partial(_pv, fetched=True)),
    Executed(op=Op.SMAX, build=_smax),
    Executed(op=Op.EXP, build=_exp, limits=_lanes_suffice),
    Executed(op=Op.PV, build=_pv),
    Executed(op=Op.NODE, build=_merge, by_count=True),
    Executed(op=Op.AOUT, build=_aout, by_count=True),
)
