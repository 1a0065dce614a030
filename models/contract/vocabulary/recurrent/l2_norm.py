"""`l2_norm`: each head over its length, in f32: of queries and keys that a delta rule takes.

Source: facts/contract2.md section 7, L2NORM.
"""

import jax
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32

from models.contract.norms import square
from models.contract.op import F32, Results, check_operand, define, per_element
from models.contract.vocabulary.rms_norm import WIDEST


def l2_norm(
    x: Float32[Array, "batch heads head_dim"], *, eps: float = 1e-6
) -> Float32[Array, "batch heads head_dim"]:
    """The heads over the roots of their sums of squares; a head of zeros stays."""
    return L2_NORM.bind(x, eps=eps)


def _shape(x: ShapedArray, *, eps: float) -> Results:
    check_operand("l2_norm", "x", x, 3, F32)
    if x.shape[-1] > WIDEST:
        raise ValueError(f"l2_norm: heads of {x.shape[-1]} lanes, the widest exact sum is of {WIDEST}.")
    return (ShapedArray(x.shape, F32),)


def _plain(x: Array, *, eps: float) -> Array:
    return x * jax.lax.rsqrt((x * x).sum(axis=-1, keepdims=True) + eps)


L2_NORM = define(
    name="l2_norm",
    shape=_shape,
    flops=per_element(3),
    contract=lambda x, *, eps: square.l2_norm(x, eps),
    plain=_plain,
)
