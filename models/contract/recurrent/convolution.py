"""CONV1D: a causal depthwise convolution of 4 taps, then silu; its state is the last 3 inputs.

Source: facts/contract2.md section 8.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32

from models.contract.formats import F64, rn32
from models.contract.numerics import silu

TAPS = 4


def convolve(
    x: Float32[Array, "tokens channels"],
    state: Float32[Array, "3 channels"],
    weight: Float32[Array, "channels taps"],
    bias: Float32[Array, " channels"],
) -> tuple[Float32[Array, "tokens channels"], Float32[Array, "3 channels"]]:
    """Results of the tokens and the state after them; the state is zeros at the start.

    The oldest tap adds first, to the bias, each to f64: products of two f32 are exact there.
    Raises ValueError unless there are 4 taps.
    """
    if weight.shape[1] != TAPS:
        raise ValueError(f"conv1d: {weight.shape[1]} taps, the contract has {TAPS}.")
    held = jnp.concatenate([state, x])
    total = jnp.broadcast_to(bias.astype(F64), x.shape)
    for tap in range(TAPS):
        total = total + weight[:, tap].astype(F64) * held[tap : tap + len(x)].astype(F64)
    return silu(rn32(total)), held[len(x) :]
