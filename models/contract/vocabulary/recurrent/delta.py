"""`delta`: the gated delta rule (Gated DeltaNet), token after token, channel by channel.

Channels are those of values, in equal heads; equal runs of those share a head of queries and keys.
Source: facts/contract2.md section 8, gated delta rule.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import ShapedArray
from jaxtyping import Float32, Int32

from models.contract.formats import mul32
from models.contract.functions.curves import sigmoid, softplus
from models.contract.functions.exponential import exp32
from models.contract.op import F32, Results, check_operand, define
from models.contract.recurrent.delta import renewed
from models.contract.vocabulary.recurrent.restart import begun, by_row, by_token, check_state

Kept = Float32[Array, "sequences key_dim channels"]


def delta(
    v: Float32[Array, "batch channels"],
    raw: Float32[Array, "batch twice_heads"],
    qk: Float32[Array, "batch both"],
    decay: Float32[Array, " channels"],
    state: Kept,
    position: Int32[Array, " batch"],
    *,
    groups: int,
) -> tuple[Float32[Array, "batch channels"], Kept]:
    """The results S' q / sqrt(key_dim), and the states S' = aS + k (beta (v - (aS)^T k))^T.

    raw: of every head what its decay is made of, a = e^(A softplus(raw)), then of every head its beta before
    the sigmoid. qk: queries of each of `groups` heads, then the keys, of length 1. decay: A, at most 0, of
    every channel that of its head. The sequences of the state share the rows in equal runs; a sequence whose
    first row is at position 0 begins with zeros.
    """
    return DELTA.bind(v, raw, qk, decay, state, position, groups=groups)


def _shape(
    v: ShapedArray,
    raw: ShapedArray,
    qk: ShapedArray,
    decay: ShapedArray,
    state: ShapedArray,
    position: ShapedArray,
    *,
    groups: int,
) -> Results:
    n, channels = state.shape[1] if len(state.shape) > 1 else 0, v.shape[-1]
    check_state("delta", v, state, position, n)
    for name, array, axes in (("raw", raw, 2), ("qk", qk, 2), ("decay", decay, 1)):
        check_operand("delta", name, array, axes, F32)
    heads, odd = divmod(raw.shape[1], 2)
    if odd or heads < 1 or channels % heads or groups < 1 or heads % groups:
        raise ValueError(
            f"delta: {raw.shape[1]} numbers of heads and {groups} heads of keys do not divide {channels} "
            "channels: two numbers a head, and as many heads on each of the keys."
        )
    if qk.shape[1] != 2 * groups * n:
        raise ValueError(
            f"delta: qk has {qk.shape[1]} lanes, {groups} heads of {n} states take {2 * groups * n}."
        )
    if decay.shape[0] != channels:
        raise ValueError(f"delta: decay has {decay.shape[0]} numbers, v {channels} channels.")
    return ShapedArray(v.shape, F32), ShapedArray(state.shape, F32)


def _flops(v: ShapedArray, raw: ShapedArray, qk: ShapedArray, *rest: Any, groups: int) -> int:
    return 7 * v.shape[0] * v.shape[1] * qk.shape[1] // (2 * groups)


def _operands(
    v: Array, raw: Array, qk: Array, state: Array, position: Array, groups: int
) -> tuple[Array, tuple[Array, ...]]:
    """(states [key_dim, sequences, channels]; by token v, raw decay and beta, q, k of every channel)."""
    sequences, n, channels = state.shape
    held = jnp.swapaxes(begun(state, position), 0, 1)
    numbers = by_token(raw, sequences).reshape(-1, sequences, 2, raw.shape[1] // 2)
    numbers = jnp.repeat(numbers, channels // numbers.shape[-1], axis=-1)
    both = by_token(qk, sequences).reshape(-1, sequences, 2, groups, n)
    both = jnp.repeat(jnp.moveaxis(both, 4, 1), channels // groups, axis=-1)  # [tokens, n, sequences, 2, ...]
    tokens = by_token(v, sequences), numbers[:, :, 0], numbers[:, :, 1], both[:, :, :, 0], both[:, :, :, 1]
    return held, tokens


def _contract(
    v: Array, raw: Array, qk: Array, decay: Array, state: Array, position: Array, *, groups: int
) -> tuple[Array, Array]:
    held, tokens = _operands(v, raw, qk, state, position, groups)

    def one(s: Array, token: tuple[Array, ...]) -> tuple[Array, Array]:
        v, raw, beta, q, k = token
        return renewed(s, left(raw, decay)[None], q, k, v, sigmoid(beta))

    held, y = lax.scan(one, held, tokens)
    return by_row(y), jnp.swapaxes(held, 0, 1)


def left(raw: Float32[Array, "*shape"], decay: Float32[Array, "*lanes"]) -> Float32[Array, "*shape"]:
    """What is left of a state after a token: e^(A softplus(raw))."""
    return exp32(mul32(jnp.broadcast_to(decay, raw.shape), softplus(raw)))


def _plain(
    v: Array, raw: Array, qk: Array, decay: Array, state: Array, position: Array, *, groups: int
) -> tuple[Array, Array]:
    held, tokens = _operands(v, raw, qk, state, position, groups)

    def one(s: Array, token: tuple[Array, ...]) -> tuple[Array, Array]:
        v, raw, beta, q, k = token
        s = jnp.exp(decay * jax.nn.softplus(raw)) * s
        s = s + k * ((v - (s * k).sum(axis=0)) * jax.nn.sigmoid(beta))
        return s, (s * q).sum(axis=0) * len(s) ** -0.5

    held, y = lax.scan(one, held, tokens)
    return by_row(y), jnp.swapaxes(held, 0, 1)


DELTA = define(name="delta", shape=_shape, flops=_flops, contract=_contract, plain=_plain)
