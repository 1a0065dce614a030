"""Rows of a step as runs of tokens, one of each sequence, and the state that each begins from."""

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32, Int32

from models.contract.op import F32, I32, check_operand, check_same


def begun(
    state: Float32[Array, "sequences *kept"], position: Int32[Array, " batch"]
) -> Float32[Array, "sequences *kept"]:
    """The state that the rows of each sequence begin from: zeros where the first of them is at position 0."""
    first = position.reshape(len(state), -1)[:, 0]
    return jnp.where(first.reshape(-1, *(1,) * (state.ndim - 1)) == 0, 0, state)


def by_token(
    rows: Float32[Array, "batch *width"], sequences: int
) -> Float32[Array, "tokens sequences *width"]:
    """The rows of a step by token, then by sequence."""
    return jnp.swapaxes(rows.reshape(sequences, -1, *rows.shape[1:]), 0, 1)


def by_row(tokens: Float32[Array, "tokens sequences *width"]) -> Float32[Array, "batch *width"]:
    """The inverse of `by_token`."""
    return jnp.swapaxes(tokens, 0, 1).reshape(-1, *tokens.shape[2:])


def check_state(op: str, x: ShapedArray, state: ShapedArray, position: ShapedArray, kept: int) -> None:
    """Raise ValueError unless x is [rows, channels], the state [sequences, kept, channels], in equal runs."""
    check_operand(op, "x", x, 2, F32)
    check_operand(op, "state", state, 3, F32)
    check_operand(op, "position", position, 1, I32)
    check_same(op, "kept values and channels of the state", state.shape[1:], (kept, x.shape[1]))
    check_same(op, "rows of x and of position", x.shape[0], position.shape[0])
    if state.shape[0] < 1 or x.shape[0] % state.shape[0]:
        raise ValueError(f"{op}: {x.shape[0]} rows are no equal share for {state.shape[0]} sequences.")
