"""`route`: how much each expert counts for each row, 0 for all but the chosen ones.

Source: facts/contract2.md section 5, SOFTMAXROUTE; `models.contract.experts.route` says it in full. The sums
of `matmul16` come before the statistic of their norm (`ops.rms_stat`) and the powers of two of their columns;
both are applied here, in one product that is rounded once.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32, Float64, Int32

from models.contract.experts.route import softmax_route
from models.contract.formats import F64, pow2, rn32
from models.contract.op import F32, I32, Results, check_operand, check_same, define, per_element

MOST_EXPERTS = 1024  # of one layer


def route(
    sums: Float32[Array, "batch experts"],
    statistic: Float32[Array, "batch 1"],
    exponent: Int32[Array, " experts"],
    *,
    chosen: int,
    renormalise: bool,
) -> Float32[Array, "batch experts"]:
    """Softmax weights of the `chosen` largest logits, sums x statistic x 2^exponent; of equals the lower ids.

    renormalise: the softmax is over the chosen alone.
    """
    return ROUTE.bind(sums, statistic, exponent, chosen=chosen, renormalise=renormalise)


def logits_of(
    sums: Float32[Array, "*batch experts"], factor: Float32[Array, "*stat"], scale: Float64[Array, "*experts"]
) -> Float32[Array, "*batch experts"]:
    """Sums times the statistic of their row times a power of two each: exact until it is rounded."""
    return rn32(sums.astype(F64) * factor.astype(F64) * scale)


def weights_of(
    ids: Int32[Array, "batch chosen"], weights: Float32[Array, "batch chosen"], experts: int
) -> Float32[Array, "batch experts"]:
    """The weights by expert, 0 for those that were not chosen."""
    own = ids[..., None] == jnp.arange(experts)
    return jnp.sum(jnp.where(own, weights[..., None], jnp.float32(0)), axis=-2)


def _shape(
    logits: ShapedArray, statistic: ShapedArray, exponent: ShapedArray, *, chosen: int, renormalise: bool
) -> Results:
    check_operand("route", "sums", logits, 2, F32)
    check_operand("route", "exponent", exponent, 1, I32)
    check_same("route", "experts of the sums and of the exponents", logits.shape[1], exponent.shape[0])
    check_operand("route", "statistic", statistic, 2, F32)
    check_same("route", "shape of the statistic and (batch, 1)", statistic.shape, (logits.shape[0], 1))
    if not 1 <= chosen <= logits.shape[1] or logits.shape[1] > MOST_EXPERTS:
        raise ValueError(
            f"route: {chosen} of {logits.shape[1]} experts: at least 1 is chosen, of {MOST_EXPERTS} at most."
        )
    return (logits,)


def _contract(sums: Array, statistic: Array, exponent: Array, *, chosen: int, renormalise: bool) -> Array:
    z = logits_of(sums, statistic, pow2(exponent))
    found = softmax_route(z, chosen, renormalise=renormalise)
    return weights_of(found.ids, found.weights, sums.shape[-1])


def _plain(sums: Array, statistic: Array, exponent: Array, *, chosen: int, renormalise: bool) -> Array:
    """In f32; the router's weights come scaled: see `contract.plain.plain_params`."""
    z = sums * statistic
    values, ids = jax.lax.top_k(z, chosen)
    weights = (
        jax.nn.softmax(values, axis=-1) if renormalise else jnp.take_along_axis(jax.nn.softmax(z), ids, -1)
    )
    return weights_of(ids, weights, sums.shape[-1])


ROUTE = define(name="route", shape=_shape, flops=per_element(8), contract=_contract, plain=_plain)
