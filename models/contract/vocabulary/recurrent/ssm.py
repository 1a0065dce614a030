"""`ssm`: the selective state space step of Mamba-1 and Mamba-2, token after token, channel by channel.

A channel has its own `d`, and its own decay (Mamba-2: that of its head, repeated) or
one for each state (Mamba-1). Source: facts/contract2.md section 8, SSM step.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import ShapedArray
from jaxtyping import Float32, Int32

from models.configs.hybrid import UNCLAMPED
from models.contract import formats
from models.contract.functions.curves import softplus
from models.contract.op import F32, Results, check_operand, define
from models.contract.recurrent import state_space
from models.contract.vocabulary.recurrent.restart import begun, by_row, by_token, check_state

Kept = Float32[Array, "sequences n channels"]


def ssm(
    x: Float32[Array, "batch channels"],
    raw: Float32[Array, "batch steps"],
    bc: Float32[Array, "batch both"],
    decay: Float32[Array, " decays"],
    d: Float32[Array, " channels"],
    state: Kept,
    position: Int32[Array, " batch"],
    *,
    groups: int = 1,
    low: float = 0.0,
    high: float = UNCLAMPED,
) -> tuple[Float32[Array, "batch channels"], Kept]:
    """The results h' C + D x and the new states h' = e^(dt A) h + (dt x) B.

    raw: time steps before their softplus and their clamp to [low, high]: of each of equal runs of channels.
    bc: B of every group of channels, then C of every group. decay: A, at most 0: of every channel, or channel
    by channel of each of its n states. The sequences of the state share the rows in equal runs; a sequence
    whose first row is at position 0 begins with zeros.
    """
    return SSM.bind(x, raw, bc, decay, d, state, position, groups=groups, low=low, high=high)


def _shape(
    x: ShapedArray,
    raw: ShapedArray,
    bc: ShapedArray,
    decay: ShapedArray,
    d: ShapedArray,
    state: ShapedArray,
    position: ShapedArray,
    *,
    groups: int,
    low: float,
    high: float,
) -> Results:
    n, channels = state.shape[1] if len(state.shape) > 1 else 0, x.shape[-1]
    check_state("ssm", x, state, position, n)
    for name, array in (("raw", raw), ("bc", bc)):
        check_operand("ssm", name, array, 2, F32)
    for name, array in (("decay", decay), ("d", d)):
        check_operand("ssm", name, array, 1, F32)
    if groups < 1 or channels % groups or channels % raw.shape[1]:
        raise ValueError(
            f"ssm: {groups} groups and {raw.shape[1]} time steps do not divide {channels} channels."
        )
    if bc.shape[1] != 2 * groups * n:
        raise ValueError(
            f"ssm: bc has {bc.shape[1]} lanes, {groups} groups of {n} states take {2 * groups * n}."
        )
    if decay.shape[0] not in (channels, channels * n):
        raise ValueError(f"ssm: decay has {decay.shape[0]} numbers, it takes {channels} or {channels * n}.")
    if d.shape[0] != channels:
        raise ValueError(f"ssm: d has {d.shape[0]} numbers, x {channels} channels.")
    if not 0 <= low <= high:
        raise ValueError(f"ssm: time steps are clamped to {low} .. {high}, it takes 0 <= low <= high.")
    return ShapedArray(x.shape, F32), ShapedArray(state.shape, F32)


def _flops(x: ShapedArray, raw: ShapedArray, bc: ShapedArray, *rest: Any, groups: int, **_: Any) -> int:
    return 6 * x.shape[0] * x.shape[1] * bc.shape[1] // (2 * groups)


def _operands(
    x: Array, raw: Array, bc: Array, decay: Array, state: Array, position: Array, groups: int
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """(states [sequences, groups, channels, n]; x, raw, B, C by token; decay [groups, channels, n or 1])."""
    sequences, n, channels = state.shape
    shape = (groups, channels // groups)
    h = jnp.swapaxes(begun(state, position), 1, 2).reshape(sequences, *shape, n)
    both = by_token(bc, sequences).reshape(-1, sequences, 2, groups, 1, n)
    steps = by_token(jnp.repeat(raw, channels // raw.shape[1], axis=1), sequences)
    tokens = by_token(x, sequences).reshape(-1, sequences, *shape)
    return h, tokens, steps.reshape(tokens.shape), both[:, :, 0], both[:, :, 1], decay.reshape(*shape, -1)


def _results(y: Array, h: Array, state: Array) -> tuple[Array, Array]:
    tokens, sequences = y.shape[:2]
    kept = jnp.swapaxes(h.reshape(sequences, -1, state.shape[1]), 1, 2)
    return by_row(y.reshape(tokens, sequences, -1)), kept


def _contract(
    x: Array,
    raw: Array,
    bc: Array,
    decay: Array,
    d: Array,
    state: Array,
    position: Array,
    *,
    groups: int,
    low: float,
    high: float,
) -> tuple[Array, Array]:
    h, tokens, steps, b, c, a = _operands(x, raw, bc, decay, state, position, groups)
    dt = jnp.clip(softplus(steps), formats.F32(low), formats.F32(high))
    h, y = state_space.scan(h, tokens, dt, a, b, c, d.reshape(a.shape[:2]))
    return _results(y, h, state)


def _plain(
    x: Array,
    raw: Array,
    bc: Array,
    decay: Array,
    d: Array,
    state: Array,
    position: Array,
    *,
    groups: int,
    low: float,
    high: float,
) -> tuple[Array, Array]:
    h, tokens, steps, b, c, a = _operands(x, raw, bc, decay, state, position, groups)
    dt = jnp.clip(jax.nn.softplus(steps), low, high)

    def one(h: Array, token: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        x, dt, b, c = token
        h = jnp.exp(dt[..., None] * a) * h + (dt * x)[..., None] * b
        return h, (h * c).sum(axis=-1) + d.reshape(a.shape[:2]) * x

    h, y = lax.scan(one, h, (tokens, dt, b, c))
    return _results(y, h, state)


SSM = define(name="ssm", shape=_shape, flops=_flops, contract=_contract, plain=_plain)
