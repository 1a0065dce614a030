"""`glu`: the gated activation of an FFN."""

import jax
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32

from models.contract import numerics
from models.contract.op import F16, F32, Results, check_operand, check_same, define, per_element

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_erf": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
}
ALONE = {"gelu_erf_alone": lambda x: jax.nn.gelu(x, approximate=False)}
"""Of a value by itself, which is given twice."""


def glu(
    gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"], *, activation: str
) -> Float16[Array, "*shape"]:
    """Activation of the gate, times up.

    activation: "silu", "gelu" in its tanh form, "gelu_erf", the exact one, or "relu", which of one value by
    itself is relu squared; or "gelu_erf_alone", of one value given twice, the exact gelu of it.
    """
    return GLU.bind(gate, up, activation=activation)


def _shape(gate: ShapedArray, up: ShapedArray, *, activation: str) -> Results:
    check_operand("glu", "gate", gate, None, F32)
    check_operand("glu", "up", up, None, F32)
    check_same("glu", "shapes of gate and up", gate.shape, up.shape)
    if activation not in (known := (*ACTIVATIONS, *ALONE)):
        raise ValueError(f"glu: activation {activation!r} is unknown, it takes {' or '.join(known)}.")
    return (ShapedArray(gate.shape, F16),)


def _contract(gate: Array, up: Array, *, activation: str) -> Array:
    return numerics.glu(gate, up, activation)


def _plain(
    gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"], *, activation: str
) -> Float32[Array, "*shape"]:
    return ALONE[activation](gate) if activation in ALONE else ACTIVATIONS[activation](gate) * up


GLU = define(name="glu", shape=_shape, flops=per_element(6), contract=_contract, plain=_plain)
