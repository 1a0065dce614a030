"""`rope`: the half-split rotary embedding of every head."""

import math

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float, Float16, Float32, Int32

from models.contract import numerics
from models.contract.op import (
    F16,
    F32,
    I32,
    Results,
    bytes_of,
    check_operand,
    check_same,
    define,
    per_element,
)

Angles = Int32[Array, "context 2 pairs"] | Float32[Array, "context 2 pairs"]
"""Cos and sin of each position: Q1.15, or f32 in the plain step."""
ONE = 1 << 15


def rope(
    x: Float[Array, "batch heads head_dim"],
    angles: Angles,
    position: Int32[Array, " batch"],
    *,
    first: int = 0,
    pairs: int = 0,
) -> Float16[Array, "batch heads head_dim"]:
    """Half-split rotary embedding at the position, rounded to fp16; angles are cos and sin in Q1.15.

    pairs: of the table, if not half of head_dim: of more the first are taken, those beyond fewer do not turn.
    """
    said = {name: value for name, value in (("first", first), ("pairs", pairs)) if value}
    return ROPE.bind(x, angles, position, **said)


def fitted(angles: Array, half: int) -> Array:
    """Cos and sin [..., 2, pairs] of this many pairs: the first, or with pairs that do not turn behind."""
    pairs, one = angles.shape[-1], ONE if angles.dtype == jnp.int32 else 1
    if pairs >= half:
        return angles[..., :half]
    rest = jnp.broadcast_to(jnp.asarray([[one], [0]], angles.dtype), (*angles.shape[:-1], half - pairs))
    return jnp.concatenate([angles, rest], axis=-1)


def _shape(
    x: ShapedArray, angles: ShapedArray, position: ShapedArray, *, first: int = 0, pairs: int = 0
) -> Results:
    """Of x [batch, heads, head_dim], angles [context, 2, head_dim / 2], position [batch]: x in fp16."""
    check_operand("rope", "x", x, 3, F16, F32)
    check_operand("rope", "angles", angles, 3, I32, F32)
    check_operand("rope", "position", position, 1, I32)
    check_same("rope", "batch of x and of position", x.shape[0], position.shape[0])
    half = x.shape[2] // 2
    check_same("rope", "angles per position and head_dim of x", angles.shape[1:], (2, pairs or half))
    return (ShapedArray(x.shape, F16),)


def _bytes(
    x: ShapedArray, angles: ShapedArray, position: ShapedArray, *, first: int = 0, pairs: int = 0
) -> int:
    turns = 4 * position.shape[0] * angles.shape[1] * angles.shape[2]
    return bytes_of(x, position) + 2 * math.prod(x.shape) + turns


def _contract(x: Array, angles: Array, position: Array, *, first: int = 0, pairs: int = 0) -> Array:
    if angles.dtype != jnp.int32:
        raise TypeError(
            f"rope: angles are {angles.dtype}, the contract takes Q1.15 (int32). Use contract.plain."
        )
    return numerics.rn16(numerics.rope(x, fitted(angles[position + first], x.shape[2] // 2)[:, None]))


def _plain(
    x: Float32[Array, "batch heads head_dim"],
    angles: Angles,
    position: Int32[Array, " batch"],
    *,
    first: int = 0,
    pairs: int = 0,
) -> Float32[Array, "batch heads head_dim"]:
    a, b = jnp.split(x, 2, axis=-1)
    turn = angles[position + first]
    if turn.dtype == jnp.int32:
        turn = turn.astype(jnp.float32) * jnp.float32(2**-15)
    turn = fitted(turn, x.shape[2] // 2)
    c, s = turn[:, None, 0], turn[:, None, 1]
    return jnp.concatenate([a * c - b * s, b * c + a * s], axis=-1)


ROPE = define(name="rope", shape=_shape, flops=per_element(3), bytes=_bytes, contract=_contract, plain=_plain)
