"""Routers: expert ids and f32 weights of each row from its logits z, alone and whole.

Source: facts/contract2.md section 5. A bias of the router is added to its matmul before (`add32`); what a
model multiplies weights with per expert is a `mul32` after.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float16, Float32, Int32

from models.contract.experts.choose import largest, taken
from models.contract.formats import F64, NumericsError, add32, mul32, rn16, rn32
from models.contract.functions.curves import sigmoid, softplus
from models.contract.numerics import argmax, expq

BITS = 28  # of a softmax weight
Score = Literal["sigmoid", "sqrt_softplus"]


class Routed(NamedTuple):
    """Chosen experts of every row, ascending, and their weights."""

    ids: Int32[Array, "*batch k"]
    weights: Float32[Array, "*batch k"]


def softmax_route(
    z: Float32[Array, "*batch experts"], k: int, *, scale: float = 1.0, renormalise: bool = True
) -> Routed:
    """SOFTMAXROUTE: the k largest logits; weights are softmax over all experts, or over the chosen.

    A softmax of the chosen logits alone (gpt-oss, Mixtral) is the renormalised form.
    """
    ids = largest(z, k)
    p = expq(z - jnp.max(z, axis=-1, keepdims=True), BITS)
    chosen = taken(p, ids)
    total = jnp.sum(chosen if renormalise else p, axis=-1, keepdims=True).astype(F64)
    return Routed(ids, rn32(chosen.astype(F64) * F64(scale) / total))


def softmax_share(
    z: Float32[Array, "*batch experts"], chosen: Bool[Array, "*batch experts"], *, renormalise: bool = True
) -> Float32[Array, "*batch experts"]:
    """The weights of `softmax_route` by expert, 0 for those that are not chosen."""
    p = expq(z - jnp.max(z, axis=-1, keepdims=True), BITS)
    total = jnp.sum(jnp.where(chosen, p, 0) if renormalise else p, axis=-1, keepdims=True).astype(F64)
    return jnp.where(chosen, rn32(p.astype(F64) / total), jnp.float32(0))


def scores(z: Float32[Array, "*batch experts"], kind: Score) -> Float32[Array, "*batch experts"]:
    """What SCOREROUTE weighs an expert by: sigmoid, or the root of softplus."""
    return sigmoid(z) if kind == "sigmoid" else rn32(jnp.sqrt(softplus(z).astype(F64)))


def score_route(
    s: Float32[Array, "*batch experts"],
    bias: Float32[Array, " experts"],
    k: int,
    *,
    groups: int = 1,
    keep: int = 1,
    scale: float = 1.0,
    renormalise: bool = True,
    eps: float = 1e-20,
) -> Routed:
    """SCOREROUTE: the k largest biased scores of the `keep` best groups; weights are the scores without bias.

    A group is as good as its two largest biased scores. Weights are the score times the scale over the sum of
    the chosen scores, which begins at eps and adds by id. Raises ValueError if groups do not fit the experts.
    """
    ids = score_choice(s, bias, k, groups=groups, keep=keep)
    chosen = taken(s, ids)
    if not renormalise:
        return Routed(ids, mul32(chosen, jnp.full_like(chosen, scale)))
    total = jnp.full(chosen.shape[:-1], eps, F64)
    for i in range(k):
        total = total + chosen[..., i].astype(F64)
    return Routed(ids, rn32(chosen.astype(F64) * F64(np.float32(scale)) / total[..., None]))


def score_choice(
    s: Float32[Array, "*batch experts"],
    bias: Float32[Array, "*#batch experts"],
    k: int,
    *,
    groups: int,
    keep: int,
) -> Int32[Array, "*batch k"]:
    """The ids that SCOREROUTE chooses, ascending."""
    return largest(_in_kept_groups(add32(s, bias), groups, keep, k), k)


def score_share(
    s: Float32[Array, "*batch experts"],
    chosen: Bool[Array, "*batch experts"],
    *,
    scale: float,
    renormalise: bool,
    eps: float = 1e-20,
) -> Float32[Array, "*batch experts"]:
    """The weights of `score_route` by expert, 0 for those that are not chosen."""
    own = jnp.where(chosen, s, jnp.float32(0))
    if not renormalise:
        return mul32(own, jnp.full_like(own, scale))
    total = jnp.full(own.shape[:-1], eps, F64)
    total, _ = lax.scan(lambda have, one: (have + one, None), total, jnp.moveaxis(own.astype(F64), -1, 0))
    return rn32(own.astype(F64) * F64(np.float32(scale)) / total[..., None])


def _in_kept_groups(biased: Array, groups: int, keep: int, k: int) -> Array:
    """The biased scores, minus infinity outside the groups that are kept."""
    experts = biased.shape[-1]
    if groups == 1:
        return biased
    if experts % groups or experts // groups < 2 or not 1 <= keep <= groups or keep * experts // groups < k:
        raise ValueError(
            f"score route: {k} of {experts} experts in {groups} groups, of which {keep} are kept: groups "
            "must be equal, of 2 experts at least, and those that are kept must hold as many as are chosen."
        )
    by_group = biased.reshape(*biased.shape[:-1], groups, -1)
    best = jnp.sort(by_group, axis=-1)
    kept = largest(add32(best[..., -1], best[..., -2]), keep)
    is_kept = jnp.any(kept[..., None] == jnp.arange(groups), axis=-2)
    return jnp.where(is_kept[..., None], by_group, -jnp.inf).reshape(biased.shape)


def llama4_route(
    z: Float32[Array, "*batch experts"],
) -> tuple[Int32[Array, "*batch"], Float32[Array, "*batch"]]:
    """LLAMA4: the largest logit's expert, and the sigmoid that its input is multiplied with."""
    ids = argmax(z)
    return ids, sigmoid(taken(z, ids[..., None])[..., 0])


def llama4_input(
    x: Float16[Array, "*batch width"], s: Float32[Array, "*batch"]
) -> Float16[Array, "*batch width"]:
    """The input of the expert of LLAMA4, whose result has weight 1."""
    return rn16(mul32(x.astype(jnp.float32), s[..., None]))


def refuse_weights(layer: str, weights: Float32[np.ndarray, "*batch k"]) -> None:
    """Raise NumericsError for rows whose chosen scores sum to 0: their weights are no number."""
    if wrong := int(np.sum(~np.all(np.isfinite(weights), axis=-1))):
        raise NumericsError(
            f"{layer}: {wrong} rows choose experts whose scores sum to 0. Give the router an eps."
        )
