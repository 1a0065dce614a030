"""Execute: one step of a packed program, a jitted scan over its steps.

The schedule is data: a step names its kernel, its operands' pool rows and where its results go. Kernels only
read the pools; one update per pool appends what they return. KV is read as the last step left it, with this
step's appended rows put in their place, and is written once at the end; so are the states.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float32, Int32, UInt8

from lpu.run.clips import at_limit
from lpu.run.image import Image
from lpu.run.kv import KV, append, renew
from lpu.run.overflow import LANES
from lpu.run.pack.layout import KernelKind, StepLayout, StepTables
from lpu.run.pools import Env, Pools


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def execute(
    layout: StepLayout,
    tables: StepTables,
    image: Image,
    state: KV,
    tokens: Int32[Array, " batch"],
    positions: Int32[Array, " batch"],
    sequence: Int32[Array, ""],
) -> tuple[
    Float32[Array, "batch vocab"],
    Int32[Array, " batch"],
    Bool[Array, ""],
    UInt8[Array, "rows batch"],
    Float32[Array, "tables batch 2"],
    KV,
]:
    """What one step gives.

    (logits, token, whether all logits are finite, values at the limit by fp16 row, experts without a slot by
    table, state).
    """
    env = Env(image, state, tokens, positions, sequence)
    pools = Pools(*(jnp.zeros(shape, dtype) for shape, dtype in layout.pool_shapes(layout.pools)))
    pools = take_steps(layout, tables, env, pools)
    assert pools.f16 is not None
    assert pools.f32 is not None
    logits = jnp.moveaxis(pools.f32[tables.logits], 0, 1).reshape(layout.batch, -1)[:, : layout.vocab]
    token = pools.f32[tables.token, :, 1].astype(jnp.int32)
    at = sequence + jnp.arange(layout.batch, dtype=jnp.int32) // (layout.batch // layout.sequences)
    put = partial(append, sequence=at, positions=positions)
    keys = zip(state.keys, tables.keys, tables.dealt, strict=True)
    values = zip(state.values, tables.values, tables.dealt, strict=True)
    new = KV(
        tuple(put(s, pools.f16[r], d) for s, r, d in keys),
        tuple(put(s, pools.f16[r], d) for s, r, d in values),
        tuple(
            renew(s, pools.f32, rows, sequence, layout.sequences)
            for s, rows in zip(state.states, tables.states, strict=True)
        ),
    )
    without = pools.f32[tables.slots, :, LANES]
    return logits, token, jnp.isfinite(logits).all(), at_limit(pools.f16), without, new


def take_steps(layout: StepLayout, tables: StepTables, env: Env, pools: Pools) -> Pools:
    """The pools after all steps."""
    branches = [_branch(kind, layout) for kind in layout.kinds]

    def step(pools: Pools, now: tuple[Array, Array, Array]) -> tuple[Pools, None]:
        kind, offset, rows = now
        blocks = lax.switch(kind, branches, env, pools, tables.table, offset)
        out = [
            lax.dynamic_update_slice(pool, block, (rows[i], *(jnp.int32(0) for _ in block.shape[1:])))
            for i, (pool, block) in enumerate(zip(pools, blocks, strict=True))
            if pool is not None
        ]
        return Pools(*out), None

    steps: Any = (tables.kind, tables.offset, tables.rows)
    return lax.scan(step, pools, steps)[0]


def _branch(
    kind: KernelKind, layout: StepLayout
) -> Callable[[Env, Pools, Int32[Array, " entries"], Int32[Array, ""]], tuple[Array, ...]]:
    """The kernel of one kind as a branch: a new block of rows for each pool, zeros where it has none."""
    shapes = layout.pool_shapes(layout.block)

    def run(env: Env, pools: Pools, table: Array, offset: Array) -> tuple[Array, ...]:
        t = lax.dynamic_slice(table, (offset,), (kind.batch * kind.width,)).reshape(kind.batch, kind.width)
        rows = kind.kernel(kind.params, env, pools, t)
        out: list[Array] = []
        for new, (shape, dtype) in zip(rows, shapes, strict=True):
            if new is None:
                out.append(jnp.zeros(shape, dtype))
            else:
                out.append(jnp.pad(new, [(0, shape[0] - len(new))] + [(0, 0)] * (len(shape) - 1)))
        return tuple(out)

    return run
