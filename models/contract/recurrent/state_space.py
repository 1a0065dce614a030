"""The selective state space step of Mamba-1 and Mamba-2, token after token. Source: facts/contract2.md 8.

Channels are lanes: in Mamba-1 each has its own A and dt, in Mamba-2 those of its head, and B and C those of
its group. Channels and heads may lie anywhere; of n, aligned subtrees (8 bytes a lane).
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float16, Float32

from models.contract.formats import F32, F64, add32, mul32, rn16, rn32
from models.contract.functions.curves import softplus
from models.contract.functions.exponential import exp32
from models.contract.norms.square import rms32
from models.contract.numerics import rms_norm, silu
from models.contract.tree import tree64

State = Float32[Array, "*channels n"]


def time_step(
    raw: Float32[Array, "*shape"], bias: Float32[Array, "*bias"], low: float = 0.0, high: float = float("inf")
) -> Float32[Array, "*shape"]:
    """The dt of a token, softplus(raw + bias), clamped where the model says."""
    return jnp.clip(softplus(add32(raw, jnp.broadcast_to(bias, raw.shape))), F32(low), F32(high))


def step(
    h: State,
    x: Float32[Array, "*channels"],
    dt: Float32[Array, "*channels"],
    a: Float32[Array, "*per_channel n_or_1"],
    b: Float32[Array, "*group n"],
    c: Float32[Array, "*group n"],
    d: Float32[Array, "*through"],
) -> tuple[State, Float32[Array, "*channels"]]:
    """The state after a token, h' = e^(dt A) h + (dt x) B, and y = h' C + D x; A is at most 0.

    A is [channels, n] or [channels, 1] (of the head), B and C are [n] or [channels, n] (of the group).
    """
    new = renewed(h, decayed(dt[..., None], a), mul32(dt, x)[..., None], b)
    per_channel = jnp.broadcast_to(c, new.shape)  # [n] is of every channel: its n is the last axis
    return new, read(jnp.moveaxis(new, -1, 0), jnp.moveaxis(per_channel, -1, 0), d, x)


def decayed(dt: Float32[Array, "..."], a: Float32[Array, "..."]) -> Float32[Array, "..."]:
    """What is left of a state after a token: e^(dt A)."""
    return exp32(mul32(dt, a))


def renewed(
    h: Float32[Array, "*shape"],
    decay: Float32[Array, "..."],
    enters: Float32[Array, "..."],
    b: Float32[Array, "..."],
) -> Float32[Array, "*shape"]:
    """A state after a token: what is left of it, and what enters times B; two exact products, one sum."""
    return rn32(decay.astype(F64) * h.astype(F64) + enters.astype(F64) * b.astype(F64))


def read(
    new: Float32[Array, "n *channels"],
    c: Float32[Array, "n ..."],
    d: Float32[Array, "..."],
    x: Float32[Array, "*channels"],
) -> Float32[Array, "*channels"]:
    """The result of a token: the tree over its states times C, and D x."""
    total = tree64(new.astype(F64) * c.astype(F64)) + d.astype(F64) * x.astype(F64)
    return rn32(total)


def scan(
    h: State,
    x: Float32[Array, "tokens *channels"],
    dt: Float32[Array, "tokens *channels"],
    a: Float32[Array, "*per_channel n_or_1"],
    b: Float32[Array, "tokens *group n"],
    c: Float32[Array, "tokens *group n"],
    d: Float32[Array, "*through"],
) -> tuple[State, Float32[Array, "tokens *channels"]]:
    """The state after all tokens, and their results."""

    def one(held: Array, token: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        return step(held, token[0], token[1], a, token[2], token[3], d)

    return lax.scan(one, h, (x, dt, b, c))


def gated_norm(
    y: Float32[Array, "*batch width"],
    z: Float32[Array, "*batch width"],
    gain: Float32[Array, " width"],
    *,
    eps: float,
    groups: int = 1,
    norm_first: bool = False,
) -> Float16[Array, "*batch width"]:
    """The results times silu(z), normed per group of lanes; or normed first, where the model does.

    Raises ValueError unless the groups divide the width.
    """
    width = y.shape[-1]
    if width % groups:
        raise ValueError(f"gated norm: {groups} groups do not divide {width} lanes.")

    def grouped(values: Array) -> Array:
        return values.reshape(*values.shape[:-1], groups, -1)

    norm = rms32 if norm_first else rms_norm
    per_group = jax.vmap(lambda row, g: norm(row, g, eps), in_axes=(-2, 0), out_axes=-2)
    if norm_first:
        return rn16(mul32(per_group(grouped(y), grouped(gain)).reshape(y.shape), silu(z)))
    return per_group(grouped(mul32(y, silu(z))), grouped(gain)).reshape(y.shape)
