"""Int4 weights in groups of 32 rows with a scale per group and column: exact codes, a tree over the groups.

Source: facts/contract2.md section 4, INT4. Splits are those of parts: aligned ranges of groups.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float16, Float32, Int8

from models.contract.formats import F64, halves, odd64, plus0, rn32
from models.contract.tree import tree32

ROWS = 32  # of a group


def int4_leaves(
    a: Float16[Array, "batch k"], q: Int8[Array, "k n"], scale: Float32[Array, "groups n"]
) -> Float32[Array, "groups batch n"]:
    """The rounded sum of every group; q is -8 to 7, scales hold bf16.

    Raises ValueError unless there is a scale for every 32 rows.
    """
    k, n = q.shape
    if k % ROWS or scale.shape != (k // ROWS, n):
        raise ValueError(f"int4: scales are {scale.shape}, weights {k} x {n} need one per {ROWS} rows.")
    weights = q.reshape(-1, ROWS, n).astype(F64)

    def summed(part: Array) -> Array:
        rows = jnp.moveaxis(part.reshape(len(part), -1, ROWS), 1, 0)
        return plus0(rows @ weights)

    high, low = (summed(part) for part in halves(a))
    return rn32(odd64(high, low) * scale.astype(F64)[:, None])


def matmul_int4(
    a: Float16[Array, "batch k"], q: Int8[Array, "k n"], scale: Float32[Array, "groups n"]
) -> Float32[Array, "batch n"]:
    """fp16 activations times int4 weights."""
    return tree32(int4_leaves(a, q, scale))
