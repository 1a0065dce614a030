"""Layers with a state: each builder of items, and below it the kernel that computes them.

A state is read as the last step left it, zeros where a sequence begins anew; the new one lies in the pools
until the step ends. The arithmetic is that of `models/contract/recurrent/`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float32, Int

from compiler.program.instructions.recurrent import (
    ConvKernel,
    DeltaKernel,
    GateKernel,
    OpenKernel,
    SsmKernel,
    StateKernel,
    decayed_lines,
    stepped_lines,
    tap_words,
)
from compiler.program.isa import F32_LANES, Op, ceil_div
from lpu.run.kv import held_states, rows_of_states, state_classes
from lpu.run.ops.items import Compute, Executed, Items, Reads, Result, Rows, Static, kept_line
from lpu.run.pools import Env, Pool, Pools, take, values_of
from models.contract.formats import F32, mul32
from models.contract.functions.curves import sigmoid, softplus
from models.contract.numerics import silu
from models.contract.recurrent import state_space
from models.contract.recurrent.convolution import convolve
from models.contract.recurrent.delta import renewed
from models.contract.vocabulary.gate16 import opened
from models.contract.vocabulary.recurrent.delta import left

Table = Int[Array, "items width"]


class _Of(NamedTuple):
    """Static parameters: a kernel with a state, and which store holds it."""

    kernel: StateKernel
    store: int


def _stored(at: Reads, k: StateKernel) -> tuple[_Of, int]:
    """(its parameters, the first of the dataflow's states that lie in its store)."""
    for number, one in enumerate(state_classes(at.flow)):
        if (one.kept, one.cached) == (k.kept, k.cached):
            return _Of(k, number), one.lines.start
    raise AssertionError(k)


def _result(k: StateKernel, line: Rows, state: Rows) -> tuple[Result, ...]:
    """Where the result of a line goes, and behind it its new state, in rows of the batch."""
    rows = 1 + int(ceil_div(k.kept, k.rows // k.sequences))
    return (Result(Pool.F32, rows, np.stack([line, kept_line(state)], axis=1)),)


def _begun(s: _Of, env: Env, index: Int[Array, " items"]) -> Float32[Array, "items sequences kept 80"]:
    """The states that the rows of each sequence begin from."""
    held = held_states(take(env.kv.states[s.store], index), env.sequence, s.kernel.sequences)
    first = env.positions.reshape(s.kernel.sequences, -1)[:, 0]
    return jnp.where(first[None, :, None, None] == 0, F32(0), held)


def _tokens(k: StateKernel, lines: Float32[Array, "*items batch 80"]) -> Float32[Array, "..."]:
    """Rows of the batch as [*items, sequences, tokens, 80]."""
    return lines.reshape(*lines.shape[:-2], k.sequences, -1, lines.shape[-1])


def _conv(at: Reads, rows: Rows, s: Static[ConvKernel]) -> Items:
    row, j = at.spread(rows, 1)
    of, begin = _stored(at, s.kernel)
    n, state = at.flow.columns.n[row], at.flow.state[row] + j
    words = at.entry(row[:, None], np.arange(tap_words(s.kernel)) * n[:, None] + j[:, None])
    out = _result(s.kernel, at.flow.result[row] + j, state)
    return at.items(conv, row, lines=[at.line(0, row, j)], others=[words, state - begin], out=out, params=of)


def conv(s: _Of, env: Env, pools: Pools, t: Table) -> Pools:
    """A line of a convolution, and the inputs that the next step begins with."""
    k = s.kernel
    assert isinstance(k, ConvKernel)
    x = take(pools.f32, t[:, 0])
    words = take(env.image.gains, t[:, 1:-1])
    weight = jnp.moveaxis(words[:, : k.kept + 1], 1, 2)
    bias = words[:, -1] if k.biased else jnp.zeros_like(words[:, 0])
    by_sequence = jax.vmap(convolve, in_axes=(0, 0, None, None))
    y, new = jax.vmap(by_sequence)(_tokens(k, x), _begun(s, env, t[:, -1]), weight, bias)
    return _left(y.reshape(x.shape), new)


def _left(y: Float32[Array, "items batch 80"], new: Float32[Array, "items sequences kept 80"]) -> Pools:
    """The result of each item, and behind it its new state."""
    kept = rows_of_states(new, y.shape[1])
    return Pools(f32=jnp.concatenate([y[:, None], kept], axis=1).reshape(-1, *y.shape[1:]))


def _step(at: Reads, rows: Rows, s: Static[SsmKernel]) -> Items:
    words = at.entry(rows[:, None], np.arange(1 + s.kernel.decays))
    lines = [at.line(0, rows, 0), at.block(1, rows)]
    others = [words, at.flow.columns.n[rows]]
    out = (Result(Pool.F32, stepped_lines(s.kernel), at.flow.result[rows]),)
    return at.items(step, rows, lines=lines, others=others, out=out, params=s.kernel)


def step(k: SsmKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """A line of channels, its time steps, its D, and what is left of its states after a token."""
    words = 1 + k.decays
    x, raw = take(pools.f32, t[:, 0]), values_of(take(pools.f32, t[:, 1 : -1 - words]))
    if not k.apart:
        of_channel = _channel(k, t[:, -1]) // (k.channels // k.steps)
        raw = jnp.take_along_axis(raw, of_channel[:, None], axis=2)
    vectors = take(env.image.gains, t[:, -1 - words : -1])[:, :, None]
    dt = jnp.clip(softplus(raw), F32(k.low), F32(k.high))
    decays = state_space.decayed(dt[:, None], vectors[:, 1:])
    through = jnp.broadcast_to(vectors[:, :1], (len(t), 1, *x.shape[1:]))
    lines = jnp.concatenate([x[:, None], dt[:, None], through, decays], axis=1)
    return Pools(f32=lines.reshape(-1, *x.shape[1:]))


def _channel(k: SsmKernel | DeltaKernel, line: Int[Array, " items"]) -> Int[Array, "items 80"]:
    """The channel of each lane; of padding the last."""
    return jnp.minimum(line[:, None] * F32_LANES + jnp.arange(F32_LANES), k.channels - 1)


def _over_states(at: Reads, rows: Rows, k: SsmKernel | DeltaKernel, kernel: Compute) -> Items:
    """Items of a line of channels, of what all lines share, and of the line's states."""
    of, begin = _stored(at, k)
    state = at.flow.state[rows]
    lines = [at.line(0, rows, 0), at.block(1, rows)]
    others = [at.flow.columns.n[rows], state - begin]
    out = _result(k, at.flow.result[rows], state)
    return at.items(kernel, rows, lines=lines, others=others, out=out, params=of)


def _by_token(
    k: SsmKernel | DeltaKernel, pools: Pools, t: Table, size: int
) -> tuple[Float32[Array, "tokens items lines sequences 80"], Float32[Array, "..."], Int[Array, "items 80"]]:
    """Lines token by token; [items, sequences, tokens, 2, groups, kept] of all; the group of each lane."""
    lines = take(pools.f32, t[:, :1] + jnp.arange(size, dtype=t.dtype))
    both = values_of(take(pools.f32, t[:, 1:-2]))[..., : 2 * k.groups * k.kept]
    both = both.reshape(len(t), k.sequences, -1, 2, k.groups, k.kept)
    return jnp.moveaxis(_tokens(k, lines), 3, 0), both, _channel(k, t[:, -2]) // (k.channels // k.groups)


def _ssm(at: Reads, rows: Rows, s: Static[SsmKernel]) -> Items:
    return _over_states(at, rows, s.kernel, ssm)


def ssm(s: _Of, env: Env, pools: Pools, t: Table) -> Pools:
    """A line of results, and its states after all tokens of each sequence."""
    k = s.kernel
    assert isinstance(k, SsmKernel)
    by_token, both, group = _by_token(k, pools, t, stepped_lines(k))

    def of_lanes(which: int) -> Float32[Array, "tokens items kept sequences lanes"]:
        """B or C of every lane; one for all of one group."""
        one = jnp.moveaxis(both[:, :, :, which], 2, 0)  # [tokens, items, sequences, groups, kept]
        if k.groups > 1:
            one = jnp.take_along_axis(one, group[None, :, None, :, None], axis=3)
        return jnp.moveaxis(one, (4, 2, 3), (2, 3, 4))

    def token(h: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        lines, b, c = now
        x, dt, d, decay = lines[:, 0], lines[:, 1], lines[:, 2], lines[:, 3:]
        h = state_space.renewed(h, decay, mul32(dt, x)[:, None], b)
        return h, state_space.read(jnp.moveaxis(h, 1, 0), jnp.moveaxis(c, 1, 0), d, x)

    begun = jnp.moveaxis(_begun(s, env, t[:, -1]), 2, 1)  # [items, kept, sequences, 80]
    new, y = lax.scan(token, begun, (by_token, of_lanes(0), of_lanes(1)))
    return _left(jnp.moveaxis(y, 0, 2).reshape(len(t), -1, F32_LANES), jnp.moveaxis(new, 1, 2))


def _gate(at: Reads, rows: Rows, s: Static[GateKernel]) -> Items:
    row, j = at.spread(rows, 1)
    out = (Result(Pool.F32, 1, at.flow.result[row] + j),)
    return at.items(gate, row, lines=[at.line(0, row, j), at.line(1, row, j)], out=out)


def gate(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """A line times silu of another."""
    return Pools(f32=mul32(take(pools.f32, t[:, 0]), silu(take(pools.f32, t[:, 1]))))


def _decay(at: Reads, rows: Rows, s: Static[DeltaKernel]) -> Items:
    lines = [at.line(0, rows, 0), at.block(1, rows)]
    others = [at.entry(rows, 0), at.flow.columns.n[rows]]
    out = (Result(Pool.F32, decayed_lines(s.kernel), at.flow.result[rows]),)
    return at.items(decay, rows, lines=lines, others=others, out=out, params=s.kernel)


def decay(k: DeltaKernel, env: Env, pools: Pools, t: Table) -> Pools:
    """A line of channels, what is left of its states after a token, and its betas."""
    v, raw = take(pools.f32, t[:, 0]), values_of(take(pools.f32, t[:, 1:-2]))
    head = _channel(k, t[:, -1])[:, None] // (k.channels // k.heads)
    numbers, betas = (jnp.take_along_axis(raw, head + at, axis=2) for at in (0, k.heads))
    kept = left(numbers, take(env.image.gains, t[:, -2])[:, None])
    lines = jnp.stack([v, kept, sigmoid(betas)], axis=1)
    return Pools(f32=lines.reshape(-1, *v.shape[1:]))


def _delta(at: Reads, rows: Rows, s: Static[DeltaKernel]) -> Items:
    return _over_states(at, rows, s.kernel, delta)


def delta(s: _Of, env: Env, pools: Pools, t: Table) -> Pools:
    """A line of results of the delta rule, and its states after all tokens of each sequence."""
    k = s.kernel
    assert isinstance(k, DeltaKernel)
    by_token, both, group = _by_token(k, pools, t, decayed_lines(k))

    def of_lanes(which: int) -> Float32[Array, "tokens kept items sequences lanes"]:
        """The query or the key of every lane."""
        one = jnp.moveaxis(both[:, :, :, which], (2, 4), (0, 1))  # [tokens, kept, items, sequences, groups]
        return jnp.take_along_axis(one, group[None, None, :, None, :], axis=4)

    def token(h: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        lines, q, key = now
        return renewed(h, lines[:, 1][None], q, key, lines[:, 0], lines[:, 2])

    begun = jnp.moveaxis(_begun(s, env, t[:, -1]), 2, 0)  # [kept, items, sequences, 80]
    new, y = lax.scan(token, begun, (by_token, of_lanes(0), of_lanes(1)))
    return _left(jnp.moveaxis(y, 0, 2).reshape(len(t), -1, F32_LANES), jnp.moveaxis(new, 0, 2))


def _gate16(at: Reads, rows: Rows, s: Static[OpenKernel]) -> Items:
    row, j = at.spread(rows, 2)
    lines = [at.line(0, row, j), at.line(1, row, 2 * j), at.line(1, row, 2 * j + 1)]
    return at.items(gate16, row, lines=lines, out=(Result(Pool.F16, 1, at.flow.result[row] + j),))


def gate16(k: None, env: Env, pools: Pools, t: Table) -> Pools:
    """An fp16 line times the sigmoid of two f32 lines."""
    return Pools(f16=opened(take(pools.f16, t[:, 0]), values_of(take(pools.f32, t[:, 1:]))))


EXECUTED = (
    Executed(op=Op.CONV, build=_conv),
    Executed(op=Op.STEP, build=_step),
    Executed(op=Op.SSM, build=_ssm),
    Executed(op=Op.GATE, build=_gate),
    Executed(op=Op.DECAY, build=_decay),
    Executed(op=Op.DELTA, build=_delta),
    Executed(op=Op.GATE16, build=_gate16),
)
