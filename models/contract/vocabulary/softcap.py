"""`softcap`: cap tanh(x / cap), as for logits. Source: facts/contract2.md section 6."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32

from models.contract.functions import curves
from models.contract.op import F32, Results, check_operand, check_same, define, per_element


def softcap(x: Float32[Array, "*shape"], *, cap: float) -> Float32[Array, "*shape"]:
    """X pressed into -cap .. cap; the cap is an f32 value."""
    return SOFTCAP.bind(x, cap=cap)


def _shape(x: ShapedArray, *, cap: float) -> Results:
    check_operand("softcap", "x", x, None, F32)
    if not 0 < cap < math.inf:
        raise ValueError(f"softcap: cap is {cap}, it takes a finite number above 0.")
    check_same("softcap", "the cap and its f32 value", cap, float(np.float32(cap)))
    return (ShapedArray(x.shape, F32),)


def _plain(x: Float32[Array, "*shape"], *, cap: float) -> Float32[Array, "*shape"]:
    return np.float32(cap) * jnp.tanh(x / np.float32(cap))


SOFTCAP = define(
    name="softcap",
    shape=_shape,
    flops=per_element(8),
    contract=lambda x, *, cap: curves.softcap(x, cap),
    plain=_plain,
)
