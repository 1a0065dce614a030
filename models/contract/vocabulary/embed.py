"""`embed`: the table's row of each token."""

import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float, Float32, Int32

from models.contract.op import F16, F32, I32, Results, bytes_of, check_operand, define


def embed(
    table: Float[Array, "vocab hidden"], tokens: Int32[Array, " batch"]
) -> Float32[Array, "batch hidden"]:
    """The table's fp16 rows of the tokens, as f32."""
    return EMBED.bind(table, tokens)


def _shape(table: ShapedArray, tokens: ShapedArray) -> Results:
    check_operand("embed", "table", table, 2, F16, F32)
    check_operand("embed", "tokens", tokens, 1, I32)
    return (ShapedArray((tokens.shape[0], table.shape[1]), F32),)


def _bytes(table: ShapedArray, tokens: ShapedArray) -> int:
    return bytes_of(tokens) + tokens.shape[0] * table.shape[1] * (table.dtype.itemsize + 4)


def _rows(
    table: Float[Array, "vocab hidden"], tokens: Int32[Array, " batch"]
) -> Float32[Array, "batch hidden"]:
    return table[tokens].astype(jnp.float32)


EMBED = define(
    name="embed", shape=_shape, flops=lambda table, tokens: 0, bytes=_bytes, contract=_rows, plain=_rows
)
