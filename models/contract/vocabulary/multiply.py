"""`multiply` and `multiply_add`: a constant factor, for embeddings, logits and residuals; `multiply_lanes`.

Source: facts/contract2.md section 7, multipliers: rn32(RN64(x m)), and of a residual MAD32(y, m, x) =
rn32(RN64(y m + x)), y m exact. `multiply_lanes` has a factor for each lane among the weights:
rn32(x m), exact in f64.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float, Float32

from models.contract.formats import F64, mul32, rn32
from models.contract.op import F16, F32, Results, check_operand, check_same, define, per_element


def multiply(x: Float32[Array, "*shape"], *, factor: float) -> Float32[Array, "*shape"]:
    """X times a constant; what divides by s is times 1/s in f64."""
    return MULTIPLY.bind(x, factor=factor)


def multiply_add(
    x: Float32[Array, "*shape"], y: Float[Array, "*shape"], *, factor: float
) -> Float32[Array, "*shape"]:
    """The residual sum x + factor y, rounded once; the factor is an f32 value, y may be fp16."""
    return MULTIPLY_ADD.bind(x, y, factor=factor)


def multiply_lanes(
    x: Float32[Array, "batch width"], factors: Float32[Array, " width"]
) -> Float32[Array, "batch width"]:
    """Each row of x times a factor for each lane; factors hold no subnormals."""
    return MULTIPLY_LANES.bind(x, factors)


def _check(op: str, factor: float) -> None:
    if not math.isfinite(factor):
        raise ValueError(f"{op}: the factor is {factor}, it must be finite.")


def _shape(x: ShapedArray, *, factor: float) -> Results:
    check_operand("multiply", "x", x, None, F32)
    _check("multiply", factor)
    return (ShapedArray(x.shape, F32),)


def _shape_add(x: ShapedArray, y: ShapedArray, *, factor: float) -> Results:
    check_operand("multiply_add", "x", x, None, F32)
    check_operand("multiply_add", "y", y, None, F32, F16)
    check_same("multiply_add", "shapes of x and y", x.shape, y.shape)
    check_same("multiply_add", "the factor and its f32 value", factor, float(np.float32(factor)))
    _check("multiply_add", factor)
    return (ShapedArray(x.shape, F32),)


def _shape_lanes(x: ShapedArray, factors: ShapedArray) -> Results:
    check_operand("multiply_lanes", "x", x, 2, F32)
    check_operand("multiply_lanes", "factors", factors, 1, F32)
    check_same("multiply_lanes", "width of x and of the factors", x.shape[1], factors.shape[0])
    return (ShapedArray(x.shape, F32),)


def scaled(x: Array, factor: float) -> Array:
    """The contract of `multiply`."""
    return rn32(x.astype(F64) * F64(factor))


def scaled_sum(x: Array, y: Array, factor: float) -> Array:
    """The contract of `multiply_add`."""
    return rn32(y.astype(F64) * F64(factor) + x.astype(F64))


def _plain(x: Float32[Array, "*shape"], *, factor: float) -> Float32[Array, "*shape"]:
    return x * np.float32(factor)


def _plain_add(
    x: Float32[Array, "*shape"], y: Float32[Array, "*shape"], *, factor: float
) -> Float32[Array, "*shape"]:
    return x + y * np.float32(factor)


MULTIPLY = define(
    name="multiply",
    shape=_shape,
    flops=per_element(1),
    contract=lambda x, *, factor: scaled(x, factor),
    plain=_plain,
)
MULTIPLY_ADD = define(
    name="multiply_add",
    shape=_shape_add,
    flops=per_element(2),
    contract=lambda x, y, *, factor: scaled_sum(x, y, factor),
    plain=_plain_add,
)
MULTIPLY_LANES = define(
    name="multiply_lanes",
    shape=_shape_lanes,
    flops=per_element(1),
    contract=lambda x, factors: mul32(x, jnp.broadcast_to(factors, x.shape)),
    plain=lambda x, factors: x * factors,
)
