"""`conv`: a causal convolution of each channel over its last inputs, which it keeps, then silu.

Source: facts/contract2.md section 8, CONV1D.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32, Int32

from models.contract.op import F32, Results, check_operand, define
from models.contract.recurrent.convolution import convolve
from models.contract.vocabulary.recurrent.restart import begun, by_row, by_token, check_state

Kept = Float32[Array, "sequences kept channels"]
Vector = Float32[Array, " channels"]


def conv(
    x: Float32[Array, "batch channels"],
    state: Kept,
    position: Int32[Array, " batch"],
    taps: tuple[Vector, ...],
    bias: Vector | None = None,
) -> tuple[Float32[Array, "batch channels"], Kept]:
    """Silu of the convolution, and the inputs that the next step begins with.

    The sequences of the state share the rows in equal runs. taps: of every channel, the oldest first, one
    more than kept inputs. A sequence whose first row is at position 0 begins with zeros.
    """
    vectors = (*taps, bias) if bias is not None else taps
    return CONV.bind(x, state, position, *vectors)


def _shape(x: ShapedArray, state: ShapedArray, position: ShapedArray, *vectors: ShapedArray) -> Results:
    kept = state.shape[1] if len(state.shape) > 1 else 0
    check_state("conv", x, state, position, kept)
    taps = kept + 1
    if kept < 1 or len(vectors) not in (taps, taps + 1):
        raise ValueError(
            f"conv: {len(vectors)} vectors beside {kept} kept inputs, of which there is at least 1: "
            f"it takes {taps} taps and perhaps a bias."
        )
    for i, vector in enumerate(vectors):
        name = f"tap {i}" if i < taps else "bias"
        check_operand("conv", name, vector, 1, F32)
        if vector.shape != x.shape[1:]:
            raise ValueError(f"conv: {name} has {vector.shape[0]} channels, x has {x.shape[1]}.")
    return ShapedArray(x.shape, F32), ShapedArray(state.shape, F32)


def _flops(x: ShapedArray, state: ShapedArray, *rest: Any) -> int:
    return (2 * (state.shape[1] + 1) + 6) * x.shape[0] * x.shape[1]


def _split(x: Array, state: Array, vectors: tuple[Array, ...]) -> tuple[Array, Array]:
    taps = state.shape[1] + 1
    bias = vectors[taps] if len(vectors) > taps else jnp.zeros(x.shape[1], x.dtype)
    return jnp.stack(vectors[:taps], axis=-1), bias


def _contract(x: Array, state: Array, position: Array, *vectors: Array) -> tuple[Array, Array]:
    weight, bias = _split(x, state, vectors)
    step = jax.vmap(
        lambda tokens, held: convolve(tokens, held, weight, bias), in_axes=(1, 0), out_axes=(1, 0)
    )
    y, new = step(by_token(x, len(state)), begun(state, position))
    return by_row(y), new


def _plain(x: Array, state: Array, position: Array, *vectors: Array) -> tuple[Array, Array]:
    weight, bias = _split(x, state, vectors)
    tokens = by_token(x, len(state))
    held = jnp.concatenate([jnp.swapaxes(begun(state, position), 0, 1), tokens])
    total = bias + sum(weight[:, tap] * held[tap : tap + len(tokens)] for tap in range(weight.shape[1]))
    return by_row(jax.nn.silu(total)), jnp.swapaxes(held[len(tokens) :], 0, 1)


CONV = define(name="conv", shape=_shape, flops=_flops, contract=_contract, plain=_plain)
