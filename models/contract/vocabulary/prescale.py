"""`prescale` and `rms_stat`: a norm in two halves, for products that apply the statistic after their sum.

Source: facts/contract2.md section 3, DEFER; `models.contract.deferred` says it in full.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32

from models.contract import deferred
from models.contract.op import F16, F32, Results, check_operand, check_same, define, per_element
from models.contract.vocabulary.rms_norm import WIDEST


def prescale(
    x: Float32[Array, "batch width"], gain: Float32[Array, " width"]
) -> Float16[Array, "batch width"]:
    """A vector times its norm's gain, scaled down by a power of two that follows from the gain, in fp16."""
    return PRESCALE.bind(x, gain)


def rms_stat(
    x: Float32[Array, "batch width"], gain: Float32[Array, " width"], *, eps: float
) -> Float32[Array, "batch 1"]:
    """One over the root mean square of each row, scaled up as `prescale` scales down."""
    return RMS_STAT.bind(x, gain, eps=eps)


def _check(op: str, x: ShapedArray, gain: ShapedArray) -> None:
    check_operand(op, "x", x, 2, F32)
    check_operand(op, "gain", gain, 1, F32)
    check_same(op, "width of x and of gain", x.shape[1], gain.shape[0])
    if x.shape[1] > WIDEST:
        raise ValueError(f"{op}: width {x.shape[1]} is above {WIDEST}, the widest exact sum of squares.")


def _prescaled(x: ShapedArray, gain: ShapedArray) -> Results:
    _check("prescale", x, gain)
    return (ShapedArray(x.shape, F16),)


def _one_each(x: ShapedArray, gain: ShapedArray, *, eps: float) -> Results:
    _check("rms_stat", x, gain)
    return (ShapedArray((x.shape[0], 1), F32),)


def _stat(x: Array, gain: Array, *, eps: float) -> Array:
    return deferred.shifted_stat(x, gain, eps)[..., None]


def _plain_stat(
    x: Float32[Array, "batch width"], gain: Float32[Array, " width"], *, eps: float
) -> Float32[Array, "batch 1"]:
    return jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + jnp.float32(eps))


PRESCALE = define(
    name="prescale",
    shape=_prescaled,
    flops=per_element(1),
    contract=deferred.prescale,
    plain=lambda x, gain: x * gain,
)
RMS_STAT = define(name="rms_stat", shape=_one_each, flops=per_element(2), contract=_stat, plain=_plain_stat)
