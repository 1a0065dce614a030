"""`gate`: a vector times silu of another, in f32: what stands before or behind the norm of a recurrent layer.

Source: facts/contract2.md section 8, gated norm.
"""

import jax
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32

from models.contract.formats import mul32
from models.contract.numerics import silu
from models.contract.op import F32, Results, check_operand, check_same, define, per_element


def gate(x: Float32[Array, "*shape"], z: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The product x silu(z)."""
    return GATE.bind(x, z)


def _shape(x: ShapedArray, z: ShapedArray) -> Results:
    check_operand("gate", "x", x, None, F32)
    check_operand("gate", "z", z, None, F32)
    check_same("gate", "shapes of x and z", x.shape, z.shape)
    return (ShapedArray(x.shape, F32),)


def _contract(x: Array, z: Array) -> Array:
    return mul32(x, silu(z))


def _plain(x: Array, z: Array) -> Array:
    return x * jax.nn.silu(z)


GATE = define(name="gate", shape=_shape, flops=per_element(6), contract=_contract, plain=_plain)
