"""CONV1D: a causal depthwise convolution, then silu; its state is the last inputs, one less than it has taps.

Source: facts/contract2.md section 8.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32

from models.contract.formats import F64, rn32
from models.contract.numerics import silu


def convolve(
    x: Float32[Array, "tokens channels"],
    state: Float32[Array, "kept channels"],
    weight: Float32[Array, "channels taps"],
    bias: Float32[Array, " channels"],
) -> tuple[Float32[Array, "tokens channels"], Float32[Array, "kept channels"]]:
    """Results of the tokens and the state after them; the state is zeros at the start.

    The oldest tap adds first, to the bias, each to f64: products of two f32 are exact there.
    Raises ValueError unless there is a tap for each kept input and one for the new.
    """
    taps = weight.shape[1]
    if taps != len(state) + 1:
        raise ValueError(f"conv1d: {taps} taps, {len(state)} kept inputs take {len(state) + 1}.")
    held = jnp.concatenate([state, x])
    total = jnp.broadcast_to(bias.astype(F64), x.shape)
    for tap in range(taps):
        total = total + weight[:, tap].astype(F64) * held[tap : tap + len(x)].astype(F64)
    return silu(rn32(total)), held[len(x) :]
