"""`gate16`: an fp16 vector times the sigmoid of another: what gated attention gives its output matrix.

Source: facts/contract2.md section 6, output gate: rn16(mul32(o, SIGMOID(gate))).
"""

import jax
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32

from models.contract.formats import F32, mul32, rn16
from models.contract.functions.curves import sigmoid
from models.contract.op import F16, Results, check_operand, check_same, define, per_element
from models.contract.op import F32 as F32_TYPE


def gate16(
    x: Float16[Array, "batch width"], z: Float32[Array, "batch width"]
) -> Float16[Array, "batch width"]:
    """The product x sigmoid(z)."""
    return GATE16.bind(x, z)


def _shape(x: ShapedArray, z: ShapedArray) -> Results:
    check_operand("gate16", "x", x, 2, F16)
    check_operand("gate16", "z", z, 2, F32_TYPE)
    check_same("gate16", "shapes of x and z", x.shape, z.shape)
    return (ShapedArray(x.shape, F16),)


def opened(x: Float16[Array, "*shape"], z: Float32[Array, "*shape"]) -> Float16[Array, "*shape"]:
    """The contract of `gate16`."""
    return rn16(mul32(x.astype(F32), sigmoid(z)))


def _plain(x: Array, z: Array) -> Array:
    return x * jax.nn.sigmoid(z)


GATE16 = define(name="gate16", shape=_shape, flops=per_element(6), contract=opened, plain=_plain)
