"""`route`: how much each expert counts for each row: 0 if not chosen, 1 or its gate if shared.

Source: facts/contract2.md section 5, SOFTMAXROUTE and SCOREROUTE; `models.contract.experts.route` says it in
full. The sums of `matmul16` come before the statistic of their norm (`ops.rms_stat`) and the powers of two of
their columns; both are applied here, in one product that is rounded once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float32, Float64, Int32

from models.contract.experts.route import score_route, scores, softmax_route
from models.contract.formats import F64, add32, pow2, rn32
from models.contract.functions.curves import sigmoid
from models.contract.op import F32, I32, Results, check_operand, check_same, define, per_element
from models.routing import Routing


class RouteOperands(NamedTuple):
    """The operands of the op by name: arrays, shapes, or views of a graph."""

    sums: Any
    statistic: Any | None
    exponent: Any
    bias: Any | None = None


def named(operands: Sequence[Any], normed: bool = True) -> RouteOperands:
    """The operands of a bound op. normed: whether there is a statistic among them."""
    return RouteOperands(*operands) if normed else RouteOperands(operands[0], None, *operands[1:])


def route(
    sums: Float32[Array, "batch experts"],
    statistic: Float32[Array, "batch 1"] | None,
    exponent: Int32[Array, " experts"],
    bias: Float32[Array, " experts"] | None = None,
    *,
    routing: Routing,
) -> Float32[Array, "batch every"]:
    """Weights of the largest logits, sums x statistic x 2^exponent; of equals the lower ids.

    statistic: None where rows were normalised before the product. bias: of sigmoid scores: added to them
    where experts are chosen, not where they are weighed; of a softmax: added to the logits. The last logit of
    gated routing is that of the shared expert's gate.
    """
    normed = () if statistic is None else (statistic,)
    operands = (sums, *normed, exponent, *(() if bias is None else (bias,)))
    return ROUTE.bind(*operands, routing=routing, **({} if normed else {"normed": False}))


def logits_of(
    sums: Float32[Array, "*batch experts"],
    factor: Float32[Array, "*stat"] | None,
    scale: Float64[Array, "*experts"],
) -> Float32[Array, "*batch experts"]:
    """Sums times the statistic of their row times a power of two each: exact until it is rounded."""
    wide = sums.astype(F64)
    return rn32((wide if factor is None else wide * factor.astype(F64)) * scale)


def weights_of(
    ids: Int32[Array, "batch chosen"], weights: Float32[Array, "batch chosen"], experts: int
) -> Float32[Array, "batch experts"]:
    """The weights by expert, 0 for those that were not chosen."""
    own = ids[..., None] == jnp.arange(experts)
    return jnp.sum(jnp.where(own, weights[..., None], jnp.float32(0)), axis=-2)


def _shape(*operands: ShapedArray, routing: Routing, normed: bool = True) -> Results:
    logits, statistic, exponent, bias = named(operands, normed)
    check_operand("route", "sums", logits, 2, F32)
    check_operand("route", "exponent", exponent, 1, I32)
    check_same("route", "experts of the sums and of the exponents", logits.shape[1], exponent.shape[0])
    if statistic is not None:
        check_operand("route", "statistic", statistic, 2, F32)
        check_same("route", "shape of the statistic and (batch, 1)", statistic.shape, (logits.shape[0], 1))
    if bias is None and routing.score == "sigmoid":
        raise ValueError("route: sigmoid scores have a bias.")
    if bias is not None:
        check_operand("route", "bias", bias, 1, F32)
        check_same("route", "experts of the sums and of the bias", logits.shape[1], bias.shape[0])
    experts = logits.shape[1] - routing.gated
    if why := routing.refusal(experts):
        raise ValueError(f"route: {why}")
    return (ShapedArray((logits.shape[0], experts + routing.shared), F32),)


def _contract(*operands: Array, routing: Routing, normed: bool = True) -> Array:
    sums, statistic, exponent, bias = named(operands, normed)
    r, z = routing, logits_of(sums, statistic, pow2(exponent))
    if r.score == "softmax":
        z = z if bias is None else add32(z, jnp.broadcast_to(bias, z.shape))
        if r.gated:
            found = softmax_route(z[..., :-1], r.chosen, renormalise=r.renormalise)
            return gated(weights_of(found.ids, found.weights, sums.shape[-1] - 1), z[..., -1:])
        found = softmax_route(z, r.chosen, renormalise=r.renormalise)
    else:
        assert bias is not None, "sigmoid scores have a bias"
        found = score_route(
            scores(z, "sigmoid"),
            bias,
            r.chosen,
            groups=r.groups,
            keep=r.keep,
            scale=r.scale,
            renormalise=r.renormalise,
        )
    return with_shared(weights_of(found.ids, found.weights, sums.shape[-1]), r.shared)


def with_shared(weights: Float32[Array, "*batch experts"], shared: int) -> Float32[Array, "*batch every"]:
    """Behind the weights of a router's experts those of shared ones, 1 each."""
    if not shared:
        return weights
    return jnp.concatenate([weights, jnp.ones((*weights.shape[:-1], shared), jnp.float32)], axis=-1)


def gated(
    weights: Float32[Array, "*batch experts"], gates: Float32[Array, "*batch one"]
) -> Float32[Array, "*batch every"]:
    """Behind the weights of a router's experts that of the shared one, the sigmoid of its gate."""
    return jnp.concatenate([weights, sigmoid(gates)], axis=-1)


def _plain(*operands: Array, routing: Routing, normed: bool = True) -> Array:
    """In f32; the router's weights come scaled: see `contract.plain.plain_params`."""
    sums, statistic, _, bias = named(operands, normed)
    r, z = routing, sums if statistic is None else sums * statistic
    if r.score == "softmax":
        z = z if bias is None else z + bias
        z, gates = (z[..., :-1], jax.nn.sigmoid(z[..., -1:])) if r.gated else (z, None)
        values, ids = jax.lax.top_k(z, r.chosen)
        softmax = jax.nn.softmax
        weights = softmax(values) if r.renormalise else jnp.take_along_axis(softmax(z), ids, -1)
        weights = weights_of(ids, weights, z.shape[-1])
        return with_shared(weights, r.shared) if gates is None else jnp.concatenate([weights, gates], axis=-1)
    assert bias is not None, "sigmoid scores have a bias"
    s = jax.nn.sigmoid(z)
    biased = (s + bias).reshape(*s.shape[:-1], r.groups, -1)
    if r.groups > 1:
        best = jax.lax.top_k(biased, 2)[0].sum(axis=-1)
        kept = jax.nn.one_hot(jax.lax.top_k(best, r.keep)[1], r.groups).sum(axis=-2) > 0
        biased = jnp.where(kept[..., None], biased, -jnp.inf)
    ids = jax.lax.top_k(biased.reshape(s.shape), r.chosen)[1]
    weights = jnp.take_along_axis(s, ids, -1)
    if r.renormalise:
        weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-20)
    return with_shared(weights_of(ids, weights * r.scale, sums.shape[-1]), r.shared)


ROUTE = define(name="route", shape=_shape, flops=per_element(8), contract=_contract, plain=_plain)
