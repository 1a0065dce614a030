"""Vector instructions: each builder of items, and below it the kernel that computes them.

The arithmetic is that of `models/contract/numerics.py`.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Int

from compiler.program.instructions.norms import (
    HeadNormKernel,
    LayerNormKernel,
    MomentsKernel,
    NormKernel,
    PrescaleKernel,
    RstatKernel,
    gain_words,
)
from compiler.program.instructions.vector import (
    AddKernel,
    ArgmaxKernel,
    ArgredKernel,
    BiasKernel,
    CapKernel,
    CastKernel,
    EmbedKernel,
    GluKernel,
    LaneMulKernel,
    MadKernel,
    MulKernel,
    RopeKernel,
)
from compiler.program.isa import F16_LANES, F32_LANES, Op, ceil_div
from lpu.run.ops.items import Executed, Items, Reads, Result, Rows, Static
from lpu.run.pools import Env, Pool, Pools, heads_in, lines_of, take, values_of
from models.contract import deferred, numerics
from models.contract.formats import F16, F32, add32, mul32, rn16
from models.contract.functions.curves import softcap
from models.contract.norms import layer
from models.contract.norms.square import l2_norm
from models.contract.vocabulary.multiply import scaled, scaled_sum
from models.contract.vocabulary.rope import fitted

FOURS = 4  # lines of which the largest value is found: programs of few chips then share one executable
Table = Int[Array, "items width"]


def _embed(at: Reads, rows: Rows, s: Static[EmbedKernel]) -> Items:
    row, j = at.spread(rows, 1)
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(embed, row, others=[at.entry(row, 0) + j], out=out, params=(s.tensor, s.kernel.positions))


def embed(of: tuple[int, bool], env: Env, pools: Pools, t: Table) -> Pools:
    """Lines of the step's tokens, or positions, from a table of the image."""
    columns, (tensor, positions) = take(env.image.columns, t[:, 0]), of
    rows = env.image.tables[tensor][env.positions if positions else env.tokens]
    lanes = jnp.where(columns >= 0, rows[:, jnp.maximum(columns, 0)], F16(0))
    return Pools(f32=jnp.swapaxes(lanes, 0, 1).astype(F32))


def _rstat(at: Reads, rows: Rows, s: Static[RstatKernel]) -> Items:
    out = (Result(Pool.F32, 1, at.flow.result[rows]),)
    factors = [at.entry(rows, 0)] if s.kernel.shifted else []
    return at.items(rstat, rows, lines=[at.block(0, rows)], others=factors, out=out, params=s.kernel)


def rstat(k: RstatKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """1/rms of all features, in lane 0, times the factor of a shifted gain."""
    lines = t[:, :-1] if k.shifted else t
    r = numerics.rms_stat(values_of(take(pools.f32, lines)), k.width, k.eps)
    if k.shifted:
        r = deferred.scale_stat(r, take(env.image.factors, t[:, -1])[:, :1])
    return Pools(f32=lines_of(r[..., None], F32_LANES))


def _pre(at: Reads, rows: Rows, s: Static[PrescaleKernel]) -> Items:
    row, j = at.spread(rows, 2)
    lines = [at.line(0, row, 2 * j), at.line(0, row, 2 * j + 1)]
    gains = [at.entry(row, 2 * j), at.entry(row, 2 * j + 1)]
    out = (Result(Pool.F16, 1, at.flow.result[row] + j),)
    return at.items(pre, row, lines=lines, others=gains, out=out)


def pre(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """Two f32 lines times a shifted gain, as one fp16 line."""
    gain = take(env.image.shifted, t[:, 2:]).reshape(-1, 1, F16_LANES)
    return Pools(f16=deferred.apply_gain(values_of(take(pools.f32, t[:, :2])), gain))


def _norm(at: Reads, rows: Rows, s: Static[NormKernel]) -> Items:
    if s.kernel.f32:
        row, j = at.spread(rows, 1)
        lines = [at.line(0, row, j), at.line(1, row, 0)]
        out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
        return at.items(norm32, row, lines=lines, others=[at.entry(row, j)], out=out)
    row, j = at.spread(rows, 2)
    lines = [at.line(0, row, 2 * j), at.line(0, row, 2 * j + 1), at.line(1, row, 0)]
    gains = [at.entry(row, 2 * j), at.entry(row, 2 * j + 1)]
    out = (Result(Pool.F16, 1, at.flow.result[row] + j),)
    return at.items(norm, row, lines=lines, others=gains, out=out)


def norm(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """Two f32 lines times their statistic and gain, as one fp16 line."""
    x, r = values_of(take(pools.f32, t[:, :2])), take(pools.f32, t[:, 2])[..., :1]
    gain = take(env.image.gains, t[:, 3:]).reshape(-1, 1, F16_LANES)
    return Pools(f16=numerics.rms_apply(x, r, gain))


def norm32(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """An f32 line times its statistic, times its gain."""
    x, r = take(pools.f32, t[:, 0]), take(pools.f32, t[:, 1])[..., :1]
    return Pools(f32=mul32(mul32(x, r), take(env.image.gains, t[:, 2])[:, None]))


def _moments(at: Reads, rows: Rows, s: Static[MomentsKernel]) -> Items:
    out = (Result(Pool.F32, 1, at.flow.result[rows]),)
    return at.items(moments, rows, lines=[at.block(0, rows)], out=out, params=s.kernel)


def moments(k: MomentsKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """1 / deviation of all features in lane 0, their mean in lane 1; padding adds nothing to either."""
    x = values_of(take(pools.f32, t))
    mean, r = layer.row_stat(x, k.width, k.eps)
    return Pools(f32=lines_of(jnp.stack([r, mean], axis=-1), F32_LANES))


def _lnorm(at: Reads, rows: Rows, s: Static[LayerNormKernel]) -> Items:
    row, j = at.spread(rows, 1)
    words = [at.entry(row, j), at.entry(row, at.flow.columns.n[row] + j)]
    lines = [at.line(0, row, j), at.line(1, row, 0)]
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(lnorm, row, lines=lines, others=words, out=out)


def lnorm(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """An f32 line less its mean, over its deviation, times a gain, plus a bias."""
    x, stat = take(pools.f32, t[:, 0]), take(pools.f32, t[:, 1])
    gain, bias = (take(env.image.gains, t[:, i])[:, None] for i in (2, 3))
    return Pools(f32=layer.layer_apply(x, (stat[..., 1], stat[..., 0]), gain, bias))


def _cap(at: Reads, rows: Rows, s: Static[CapKernel]) -> Items:
    row, j = at.spread(rows, 1)
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(cap, row, lines=[at.line(0, row, j)], out=out, params=s.kernel)


def cap(k: CapKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """An f32 line through a soft cap."""
    return Pools(f32=softcap(take(pools.f32, t[:, 0]), k.cap))


def _hnorm(at: Reads, rows: Rows, s: Static[HeadNormKernel]) -> Items:
    if s.kernel.length:
        out = (Result(Pool.F32, int(ceil_div(s.n * s.kernel.head_dim, F32_LANES)), at.flow.result[rows]),)
        return at.items(by_length, rows, lines=[at.block(0, rows)], out=out, params=s)
    words = np.arange(gain_words(s.n, s.kernel))
    pool, lanes = (Pool.F32, F32_LANES) if s.kernel.f32 else (Pool.F16, F16_LANES)
    out = (Result(pool, int(ceil_div(s.n * s.kernel.head_dim, lanes)), at.flow.result[rows]),)
    gains = at.entry(rows[:, None], words)
    return at.items(hnorm, rows, lines=[at.block(0, rows)], others=[gains], out=out, params=s)


def by_length(s: Static[HeadNormKernel], env: Env, pools: Pools, t: Table) -> Pools:
    """Each of n heads over its length."""
    y = l2_norm(heads_in(pools.f32, t, s.n, s.kernel.head_dim), s.kernel.eps)
    return Pools(f32=lines_of(y.reshape(*y.shape[:2], -1), F32_LANES))


def hnorm(s: Static[HeadNormKernel], env: Env, pools: Pools, t: Table) -> Pools:
    """RMS norm of each of n heads."""
    head_dim, words = s.kernel.head_dim, int(gain_words(s.n, s.kernel))
    heads = s.n if s.kernel.own else 1
    x = heads_in(pools.f32, t[:, :-words], s.n, head_dim)
    lanes = take(env.image.gains, t[:, -words:]).reshape(len(t), -1)[:, : heads * head_dim]
    gain = lanes.reshape(len(t), 1, heads, head_dim)
    r = numerics.rms_stat(x, head_dim, s.kernel.eps)[..., None]
    if s.kernel.f32:
        y = mul32(mul32(x, r), gain)
        return Pools(f32=lines_of(y.reshape(*y.shape[:2], -1), F32_LANES))
    y = numerics.rms_apply(x, r, gain)
    return Pools(f16=lines_of(y.reshape(*y.shape[:2], -1), F16_LANES))


def _rope(at: Reads, rows: Rows, s: Static[RopeKernel]) -> Items:
    lines = int(ceil_div(s.n * s.kernel.head_dim, F16_LANES))
    out = (Result(Pool.F16, lines, at.flow.result[rows]),)
    return at.items(rope, rows, lines=[at.block(0, rows)], out=out, params=s)


def rope(s: Static[RopeKernel], env: Env, pools: Pools, t: Table) -> Pools:
    """Each of n heads turned by the angles of its row's position."""
    pool = pools.f32 if s.kernel.input == "f32" else pools.f16
    x = heads_in(pool, t, s.n, s.kernel.head_dim)
    angles = env.image.angles[s.tensor][env.positions + s.kernel.first]
    y = rn16(numerics.rope(x, fitted(angles, s.kernel.head_dim // 2)[:, None]))
    return Pools(f16=lines_of(y.reshape(*y.shape[:2], -1), F16_LANES))


def _cast(at: Reads, rows: Rows, s: Static[CastKernel]) -> Items:
    row, j = at.spread(rows, 2)
    lines = [at.line(0, row, 2 * j), at.line(0, row, 2 * j + 1)]
    return at.items(cast, row, lines=lines, out=(Result(Pool.F16, 1, at.flow.result[row] + j),))


def cast(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """Two f32 lines rounded to one of fp16."""
    return Pools(f16=rn16(values_of(take(pools.f32, t))))


def _add(at: Reads, rows: Rows, s: Static[AddKernel]) -> Items:
    row, j = at.spread(rows, 1)
    lines = [at.line(0, row, j), at.line(1, row, j)]
    return at.items(add, row, lines=lines, out=(Result(Pool.F32, 1, at.flow.result[row] + j),))


def add(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """The sum of two f32 lines."""
    return Pools(f32=add32(take(pools.f32, t[:, 0]), take(pools.f32, t[:, 1])))


def _bias(at: Reads, rows: Rows, s: Static[BiasKernel]) -> Items:
    row, j = at.spread(rows, 1)
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(bias, row, lines=[at.line(0, row, j)], others=[at.entry(row, j)], out=out)


def bias(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """The sum of an f32 line and a line of a bias, the same for all rows."""
    x = take(pools.f32, t[:, 0])
    return Pools(f32=add32(x, jnp.broadcast_to(take(env.image.gains, t[:, 1])[:, None], x.shape)))


def _vmul(at: Reads, rows: Rows, s: Static[LaneMulKernel]) -> Items:
    row, j = at.spread(rows, 1)
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(vmul, row, lines=[at.line(0, row, j)], others=[at.entry(row, j)], out=out)


def vmul(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """The product of an f32 line and a line of factors, the same for all rows."""
    x = take(pools.f32, t[:, 0])
    return Pools(f32=mul32(x, jnp.broadcast_to(take(env.image.gains, t[:, 1])[:, None], x.shape)))


def _mul(at: Reads, rows: Rows, s: Static[MulKernel]) -> Items:
    row, j = at.spread(rows, 1)
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(mul, row, lines=[at.line(0, row, j)], out=out, params=s.kernel)


def mul(k: MulKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """An f32 line times a constant."""
    return Pools(f32=scaled(take(pools.f32, t[:, 0]), k.factor))


def _mad(at: Reads, rows: Rows, s: Static[MadKernel]) -> Items:
    row, j = at.spread(rows, 1)
    lines = [at.line(0, row, j), at.line(1, row, j)]
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(mad, row, lines=lines, out=out, params=s.kernel)


def mad(k: MadKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """The sum of an f32 line and a constant times another."""
    return Pools(f32=scaled_sum(take(pools.f32, t[:, 0]), take(pools.f32, t[:, 1]), k.factor))


def _glu(at: Reads, rows: Rows, s: Static[GluKernel]) -> Items:
    row, j = at.spread(rows, 2)
    lines = [at.line(operand, row, 2 * j + i) for operand in (0, 1) for i in (0, 1)]
    out = (Result(Pool.F16, 1, at.flow.result[row] + j),)
    return at.items(glu, row, lines=lines, out=out, params=s.kernel)


def glu(k: GluKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """The activation of two lines of the gate, times two of up, as one fp16 line."""
    gate, up = (values_of(take(pools.f32, t[:, i : i + 2])) for i in (0, 2))
    return Pools(f16=numerics.glu(gate, up, k.activation))


def _argmax(at: Reads, rows: Rows, s: Static[ArgmaxKernel]) -> Items:
    out = (Result(Pool.F32, 1, at.flow.result[rows]),)
    lines, first = _filled(at.block(0, rows)), at.flow.columns.src3[rows]
    return at.items(argmax, rows, lines=[lines], others=[first], out=out, params=s.kernel)


def argmax(k: ArgmaxKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """The largest logit of some lines and its column."""
    x = values_of(take(pools.f32, t[:, :-1]))
    column = t[:, -1:] * F32_LANES + jnp.arange(x.shape[-1], dtype=t.dtype)
    column = jnp.broadcast_to(column[:, None], x.shape)
    return _largest(jnp.where(column < k.vocab, x, -jnp.inf), column.astype(F32))


def _argred(at: Reads, rows: Rows, s: Static[ArgredKernel]) -> Items:
    out = (Result(Pool.F32, 1, at.flow.result[rows]),)
    return at.items(argred, rows, lines=[_filled(at.block(0, rows))], out=out)


def _filled(lines: Int[np.ndarray, "rows lines"]) -> Int[np.ndarray, "rows filled"]:
    """Lines, the last of them again up to a multiple of FOURS: of equal values its lowest column is taken."""
    return np.pad(lines, ((0, 0), (0, -lines.shape[1] % FOURS)), mode="edge")


def argred(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """The largest of several maxima."""
    x = jnp.moveaxis(take(pools.f32, t)[..., :2], 1, 2)
    return _largest(x[..., 0], x[..., 1])


def _largest(
    value: Float32[Array, "items batch values"], column: Float32[Array, "items batch values"]
) -> Pools:
    """Lines of the largest value and of the lowest column that has it."""
    best = value.max(axis=-1)
    index = jnp.where(value == best[..., None], column, F32(2**24)).min(axis=-1)
    return Pools(f32=lines_of(jnp.stack([best, index], axis=-1), F32_LANES))


def _columns_are_exact(k: ArgmaxKernel) -> tuple[tuple[str, int, int], ...]:
    return (("vocab", k.vocab, 1 << 24),)


EXECUTED = (
    Executed(op=Op.EMBED, build=_embed),
    Executed(op=Op.RSTAT, build=_rstat, by_count=True),
    Executed(op=Op.NORM, build=_norm),
    Executed(op=Op.MOMENTS, build=_moments, by_count=True),
    Executed(op=Op.LNORM, build=_lnorm),
    Executed(op=Op.PRE, build=_pre),
    Executed(op=Op.HNORM, build=_hnorm, by_count=True),
    Executed(op=Op.ROPE, build=_rope, by_count=True),
    Executed(op=Op.CAST, build=_cast),
    Executed(op=Op.ADD, build=_add),
    Executed(op=Op.BIAS, build=_bias),
    Executed(op=Op.VMUL, build=_vmul),
    Executed(op=Op.MUL, build=_mul),
    Executed(op=Op.MAD, build=_mad),
    Executed(op=Op.CAP, build=_cap),
    Executed(op=Op.GLU, build=_glu),
    Executed(op=Op.ARGMAX, build=_argmax, by_count=True, limits=_columns_are_exact),
    Executed(op=Op.ARGRED, build=_argred, by_count=True),
)
