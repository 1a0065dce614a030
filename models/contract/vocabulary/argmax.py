"""`argmax`: the most likely token."""

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32, Int32

from models.contract import numerics
from models.contract.op import F32, I32, Results, check_operand, define, per_element


def argmax(logits: Float32[Array, "batch vocab"]) -> Int32[Array, " batch"]:
    """The token with the largest logit, the lowest of equals."""
    return ARGMAX.bind(logits)


def _shape(logits: ShapedArray) -> Results:
    check_operand("argmax", "logits", logits, 2, F32)
    return (ShapedArray(logits.shape[:1], I32),)


def _plain(logits: Float32[Array, "batch vocab"]) -> Int32[Array, " batch"]:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


ARGMAX = define(name="argmax", shape=_shape, flops=per_element(1), contract=numerics.argmax, plain=_plain)
