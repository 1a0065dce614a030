"""Pools: every line that a step has computed so far, one row each, and what else kernels read.

A line of all sequences is one pool row: fp16 [batch, 160], f32 [batch, 80], wide [2, batch, 80] (high, low).
Row 0 of every pool is zero. Integers below 2^24 (softmax weights, vocabulary columns) lie in f32 rows as
numbers, sums of softmax weights in the high part of a wide row.
"""

from enum import IntEnum
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float16, Float32, Float64, Int, Int32, Shaped

from compiler.program.isa import F32_LANES, ceil_div
from lpu.run.image import Image
from lpu.run.kv import KV
from models.contract.formats import Wide


class Pool(IntEnum):
    """The pools, by the format of their rows."""

    F16 = 0
    F32 = 1
    WIDE = 2


class Env(NamedTuple):
    """Read-only inputs of a step. sequence: index of the first KV-cache sequence the step works on."""

    image: Image
    kv: KV
    tokens: Int32[Array, " batch"]
    positions: Int32[Array, " batch"]
    sequence: Int32[Array, ""]


class Pools(NamedTuple):
    """Everything computed so far in this step, one row per line; or the new rows of one kernel."""

    f16: Float16[Array, "rows batch 160"] | None = None
    f32: Float32[Array, "rows batch 80"] | None = None
    wide: Float64[Array, "rows 2 batch 80"] | None = None


def take(pool: Shaped[Array, "rows ..."] | None, index: Int[Array, "..."]) -> Shaped[Array, "..."]:
    """Rows of a pool or entries of the image: [*index, *row]."""
    assert pool is not None
    return pool.at[index].get(mode="promise_in_bounds")


def values_of(lines: Shaped[Array, "items lines batch lanes"]) -> Shaped[Array, "items batch values"]:
    """The values of an item's lines side by side."""
    items, count, batch, lanes = lines.shape
    return jnp.moveaxis(lines, 1, 2).reshape(items, batch, count * lanes)


def lines_of(values: Shaped[Array, "items batch values"], lanes: int) -> Shaped[Array, "rows batch {lanes}"]:
    """The rows that hold an item's values, padded with zeros, item by item."""
    items, batch, width = values.shape
    count = int(ceil_div(width, lanes))
    values = jnp.pad(values, ((0, 0), (0, 0), (0, count * lanes - width)))
    return jnp.moveaxis(values.reshape(items, batch, count, lanes), 2, 1).reshape(-1, batch, lanes)


def wide_lines_of(part: Wide) -> Float64[Array, "rows 2 batch 80"]:
    """The wide rows of values [items, batch, values]."""
    return jnp.stack([lines_of(part.high, F32_LANES), lines_of(part.low, F32_LANES)], axis=1)


def heads_in(
    pool: Shaped[Array, "rows batch lanes"] | None,
    lines: Int[Array, "items lines"],
    heads: int,
    head_dim: int,
) -> Shaped[Array, "items batch {heads} {head_dim}"]:
    """The heads that lie densely in lines of a pool."""
    values = values_of(take(pool, lines))
    return values[..., : heads * head_dim].reshape(*values.shape[:2], heads, head_dim)
