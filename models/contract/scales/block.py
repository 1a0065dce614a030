"""BLOCKSCALE: e4m3 weights with an f32 scale per block of rows and columns, as in DeepSeek's checkpoints.

The codes stay exact: a block of rows is a contract part with a scale of its own. Splits are those of parts.
Source: facts/contract2.md section 4.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float16, Float32, UInt8

from models.contract import parts
from models.contract.formats import F64
from models.contract.tree import tree32


def block_starts(k: int, rows: int) -> tuple[int, ...]:
    """Where blocks of `rows` input rows begin, and K, where the last one ends: it may be shorter."""
    return (*range(0, k, rows), k)


def matmul_blocks(
    a: Float16[Array, "batch k"],
    codes: UInt8[Array, "k n"],
    scale: Float32[Array, "blocks_k blocks_n"],
    rows: int,
    columns: int,
) -> Float32[Array, "batch n"]:
    """fp16 activations times e4m3 weights whose blocks of rows x columns have a scale each.

    A scale is finite, and 0 or at least 2^-126. Raises ValueError if there are not as many scales as blocks.
    """
    k, n = codes.shape
    starts = block_starts(k, rows)
    needed = (len(starts) - 1, -(-n // columns))
    if scale.shape != needed:
        raise ValueError(
            f"block scales: are {scale.shape}, weights {k} x {n} in {rows} x {columns} need {needed}."
        )
    every = jnp.repeat(scale, columns, axis=1)[:, :n].astype(F64)
    return tree32(parts.leaves(a, codes, every, starts))
