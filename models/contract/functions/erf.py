"""The exact gelu of the contract, g times the share of a normal distribution below g, by an integer table.

Source: facts/contract2.md sections 1 (QUAD, the table PHI) and 7 (GELU, erf form).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float32

from models.contract.formats import F64, I64, rn32
from models.contract.functions.quadratic import quad

BITS = 40  # of the share


def gelu_erf(g: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The product of g and the share of a normal distribution below g; 0.63 ulp where it is above 1e-3."""
    size = jnp.abs(g).astype(F64)
    near = size < 8 - 2.0**-20
    x = jnp.round(jnp.where(near, size, 0.0) * 2.0**28).astype(I64)
    q = jnp.where(near, quad("phi", x, 20), 0)
    share = jnp.where(g >= 0, (1 << BITS) - q, q).astype(F64)
    return rn32(g.astype(F64) * share * 2.0**-BITS)
