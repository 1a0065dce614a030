"""Mixtures of experts: each builder of items, and below it the kernel that computes them.

Products with the tiles of experts are in `lpu/run/ops/matmul.py`, among all others.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from compiler.program.instructions.experts import (
    HalfKernel,
    RankKernel,
    ShareKernel,
    SlotsKernel,
    WeightedGluKernel,
)
from compiler.program.isa import F16_LANES, F32_LANES, TILE_ROWS, Op, ceil_div
from lpu.run.ops.items import Executed, Items, Reads, Result, Rows, Static
from lpu.run.pools import Env, Pool, Pools, lines_of, take, values_of
from models.contract import dot16
from models.contract.experts.choose import largest
from models.contract.experts.route import score_choice, score_share, scores, softmax_share
from models.contract.experts.slots import table, weighted_glu
from models.contract.formats import F32, add32, rn32
from models.contract.vocabulary.route import gated, logits_of, with_shared

Table = Int[Array, "items width"]


def _mm16(at: Reads, rows: Rows, s: Static[HalfKernel]) -> Items:
    tiles = at.entry(rows[:, None], np.arange(ceil_div(s.kernel.k_lines, 2)))
    out = (Result(Pool.F32, 1, at.flow.result[rows]),)
    return at.items(mm16, rows, lines=[at.block(0, rows)], others=[tiles], out=out, params=s.kernel)


def mm16(k: HalfKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """All input rows times fp16 weights of one line of columns."""
    x = values_of(take(pools.f16, t[:, : k.k_lines]))
    weights = take(env.image.halves, t[:, k.k_lines :]).reshape(len(t), -1, F32_LANES)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, weights.shape[1] - x.shape[2])))
    assert weights.shape[1] % TILE_ROWS == 0
    y = rn32(dot16.rounded_odd(dot16.sums(x[..., : dot16.MOST_K], weights[:, : dot16.MOST_K])))
    return Pools(f32=lines_of(y, F32_LANES))


def _rank(at: Reads, rows: Rows, s: Static[RankKernel]) -> Items:
    lines = np.arange(ceil_div(s.kernel.experts, F32_LANES) * (2 if s.kernel.has_bias else 1))
    out = (Result(Pool.F32, 2 * s.n, at.flow.result[rows]),)
    scales = at.entry(rows[:, None], lines)
    read = [at.block(0, rows), *([at.line(1, rows, 0)] if s.kernel.normed else [])]
    return at.items(rank, rows, lines=read, others=[scales], out=out, params=s)


def rank(s: Static[RankKernel], env: Env, pools: Pools, t: Table) -> Pools:
    """Logits or scores of some lines of experts, each followed by which of them are chosen."""
    k, lines = s.kernel, int(ceil_div(s.kernel.experts, F32_LANES))
    sums = values_of(take(pools.f32, t[:, :lines]))
    factor = take(pools.f32, t[:, lines])[..., :1] if k.normed else None
    words = t[:, lines + k.normed :]
    scale = take(env.image.scales, words[:, :lines]).reshape(len(t), 1, -1)
    z = logits_of(sums, factor, scale)
    if not k.has_bias:
        ids = largest(z[..., : k.experts - k.gated], k.chosen)
    else:
        bias = take(env.image.scales, words[:, lines:]).reshape(len(t), 1, -1).astype(F32)
        z = scores(z, "sigmoid") if k.sigmoid else add32(z, jnp.broadcast_to(bias, z.shape))
        of, own = z[..., : k.experts - k.gated], bias[..., : k.experts - k.gated]
        ids = (
            score_choice(of, own, k.chosen, groups=k.groups, keep=k.keep)
            if k.sigmoid
            else largest(of, k.chosen)
        )
    chosen = (ids[..., None] == jnp.arange(z.shape[-1])).any(axis=-2)
    columns = (k.first + jnp.arange(s.n))[:, None] * F32_LANES + jnp.arange(F32_LANES)
    both = jnp.stack([z[..., columns], chosen[..., columns].astype(F32)], axis=-2)  # [items batch n 2 80]
    return Pools(f32=lines_of(both.reshape(*both.shape[:2], -1), F32_LANES))


def _share(at: Reads, rows: Rows, s: Static[ShareKernel]) -> Items:
    out = (Result(Pool.F32, s.n, at.flow.result[rows]),)
    return at.items(share, rows, lines=[at.block(0, rows)], out=out, params=s.kernel)


def share(k: ShareKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """Weights of the chosen experts, and of shared ones."""
    x = values_of(take(pools.f32, t))
    x = x.reshape(*x.shape[:2], -1, 2, F32_LANES)
    z, chosen = (x[..., i, :].reshape(*x.shape[:2], -1)[..., : k.experts] for i in range(2))
    if k.gated:
        shares = softmax_share(z[..., :-1], chosen[..., :-1] > 0, renormalise=k.renormalise)
        return Pools(f32=lines_of(gated(shares, z[..., -1:]), F32_LANES))
    if k.scores:
        shares = score_share(z, chosen > 0, scale=k.scale, renormalise=k.renormalise)
    else:
        shares = softmax_share(z, chosen > 0, renormalise=k.renormalise)
    return Pools(f32=lines_of(with_shared(shares, k.shared), F32_LANES))


def _slots(at: Reads, rows: Rows, s: Static[SlotsKernel]) -> Items:
    out = (Result(Pool.F32, s.n, at.flow.result[rows]),)
    first = at.flow.columns.src3[rows]
    return at.items(slots, rows, lines=[at.block(0, rows)], others=[first], out=out, params=s)


def slots(s: Static[SlotsKernel], env: Env, pools: Pools, t: Table) -> Pools:
    """Of each slot, for every row, how much its expert counts, and its number among those of the table.

    Where slots may not suffice, lane 2 says how many experts that some row chose have none, and lane 3 how
    many of them the row itself chose.
    """
    first, weights = s.kernel.first, values_of(take(pools.f32, t[:, :-1]))
    weights = weights[..., first : first + s.kernel.held]

    def one(weights: Array, first: Array) -> Array:
        found = table(weights, s.kernel.slots, s.kernel.shared if s.kernel.bounded else 0)
        which = first + jnp.arange(s.n)
        ids = jnp.broadcast_to(found.ids[which].astype(F32), (weights.shape[0], s.n))
        said = [found.weights[:, which], ids]
        if s.kernel.bounded:
            chosen = weights != 0
            without = jnp.maximum(jnp.any(chosen, axis=0).sum() - s.kernel.slots, 0)
            own = chosen.sum(axis=1) - (found.weights != 0).sum(axis=1)
            said += [jnp.broadcast_to(one.astype(F32), ids.shape) for one in (without, own[:, None])]
        lanes = jnp.stack(said, axis=-1)
        return jnp.moveaxis(jnp.pad(lanes, ((0, 0), (0, 0), (0, F32_LANES - len(said)))), 1, 0)

    made = jax.vmap(one)(weights, t[:, -1])
    return Pools(f32=made.reshape(-1, *made.shape[2:]))


def _lines_of(k: WeightedGluKernel) -> int:
    """The f32 lines that make an fp16 line."""
    return F16_LANES // k.columns


def _wglu(at: Reads, rows: Rows, s: Static[WeightedGluKernel]) -> Items:
    some = _lines_of(s.kernel)
    row, j = at.spread(rows, some)
    lines = [at.line(0, row, some * j + i) for i in range(some)]
    word = s.kernel.biases * (some * j[:, None]) + np.arange(some * s.kernel.biases)
    biases = [at.entry(row[:, None], word)] if s.kernel.biases else []
    out = (Result(Pool.F16, 1, at.flow.result[row] + j),)
    read = [*lines, at.line(1, row, 0)]
    return at.items(wglu, row, lines=read, others=biases, out=out, params=s.kernel)


def wglu(k: WeightedGluKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """The activation of the gate times up, with the biases of the slot's expert, times the slot's weight."""
    some = _lines_of(k)
    x = take(pools.f32, t[:, :some])  # [items lines batch 80]
    slot = take(pools.f32, t[:, some])  # [items batch 80]
    weight = slot[..., :1]
    if k.biases:
        entries = t[:, some + 1 :].reshape(len(t), some, k.biases)
        expert = slot[:, :1, 1].astype(jnp.int32)[:, None]  # of all rows the same
        own = jnp.take_along_axis(entries, jnp.broadcast_to(expert, (len(t), some, 1)), axis=2)
        x = add32(x, jnp.broadcast_to(take(env.image.gains, own), x.shape))
    gate, up = values_of(x[..., : k.columns]), values_of(x[..., -k.columns :])
    return Pools(f16=weighted_glu(gate, up, weight, k.activation))


EXECUTED = (
    Executed(op=Op.MM16, build=_mm16),
    Executed(op=Op.RANK, build=_rank, by_count=True),
    Executed(op=Op.SHARE, build=_share, by_count=True),
    Executed(op=Op.SLOTS, build=_slots, by_count=True),
    Executed(op=Op.WGLU, build=_wglu),
)
