"""Slots: the experts that a step computes, for all of its rows together, and how much each counts for a row.

A slot is one expert; a row that did not choose it takes it with weight 0, which contributes exactly 0. With
`slots_of` slots no choice of any row is ever left out.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float16, Float32, Int32

from models.contract import numerics
from models.contract.formats import F64, mul32, rn16, rn32
from models.contract.functions.gates import oai_gated, relu2

OAI = "swiglu_oai"
"""The gated activation of gpt-oss (`models.contract.functions.gates`), by name."""
WEIGHED = "silu_weighed"
"""Silu of the gate times up, both times the weight first: Llama 4, whose router weighs what experts take."""
RELU2 = "relu2"
"""Relu squared of what goes up; there is no gate: Nemotron-3."""
UNGATED = (RELU2,)


class Slots(NamedTuple):
    """Expert and weights of each slot; an idle one has expert 0 and weights 0."""

    ids: Int32[Array, " slots"]
    weights: Float32[Array, "batch slots"]


def slots_of(experts: int, chosen: int, rows: int) -> int:
    """The slots that suffice whatever the rows choose."""
    return min(experts, rows * chosen)


def table(weights: Float32[Array, "batch experts"], slots: int, first: int = 0) -> Slots:
    """The experts of weight other than 0, by id, in this many slots; with `experts` slots each has its own.

    first: this many experts, the last, come before the others. What finds no slot is left out.
    """
    experts = weights.shape[-1]
    if slots == experts:
        return Slots(jnp.arange(experts, dtype=jnp.int32), weights)
    turn = jnp.arange(experts, dtype=jnp.int32)
    ids = (turn - first) % experts
    wanted = jnp.any(weights != 0, axis=0)[ids]
    turn = jnp.sort(jnp.where(wanted, turn, experts))[:slots]
    real = turn < experts
    ids = jnp.where(real, ids[jnp.where(real, turn, 0)], 0)
    return Slots(ids, jnp.where(real, jnp.take(weights, ids, axis=-1), jnp.float32(0)))


def weighted_glu(
    gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"], weight: Float32[Array, "*weight"], kind: str
) -> Float16[Array, "*shape"]:
    """The gated value in f32, times the weight, in f32 and then fp16; 0 where the weight is 0.

    kind: an activation of the gate, which is multiplied by up, or OAI; of WEIGHED gate and up are times the
    weight, and their product is not; of RELU2 there is only up, given twice.
    """
    if kind == WEIGHED:
        weight = jnp.broadcast_to(weight, gate.shape)
        inner = numerics.ACTIVATIONS["silu"](mul32(gate, weight)).astype(F64) * mul32(up, weight).astype(F64)
        return jnp.where(weight == 0, jnp.float16(0), rn16(rn32(inner)))
    if kind in (OAI, RELU2):
        value = oai_gated(gate, up) if kind == OAI else relu2(up)
    else:
        value = rn32(numerics.ACTIVATIONS[kind](gate).astype(F64) * up.astype(F64))
    weight = jnp.broadcast_to(weight, value.shape)
    return jnp.where(weight == 0, jnp.float16(0), rn16(mul32(value, weight)))
