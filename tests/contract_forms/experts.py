"""Forms of routers and of the combine."""

import jax.numpy as jnp
from contract_forms.form import Case, Compute, Results, form
from jax import Array

from models.contract.experts import combine as combining
from models.contract.experts import route
from models.contract.formats import add32


@form("softmaxroute", "z")
def softmaxroute(case: Case) -> Compute:
    k, renormalise, scale = int(case["k"]), bool(case["renorm"]), float(case["scale"])

    def compute(z: Array) -> Results:
        ids, weights = route.softmax_route(z, k, scale=scale, renormalise=renormalise)
        return {"id": ids, "w": weights}

    return compute


@form("scoreroute", "z", "bias")
def scoreroute(case: Case) -> Compute:
    k, groups, keep = (int(case[name]) for name in ("k", "groups", "keep"))
    scale, eps, renormalise = float(case["scale"]), float(case["eps"]), bool(case["renorm"])
    kind: route.Score = "sqrt_softplus" if case["kind"] else "sigmoid"

    def compute(z: Array, bias: Array) -> Results:
        s = route.scores(z, kind)
        ids, weights = route.score_route(
            s, bias, k, groups=groups, keep=keep, scale=scale, renormalise=renormalise, eps=eps
        )
        return {"s": s, "id": ids, "w": weights}

    return compute


@form("llama4", "z", "x")
def llama4(case: Case) -> Compute:
    def compute(z: Array, x: Array) -> Results:
        ids, s = route.llama4_route(z)
        return {"id": ids, "s": s, "y": route.llama4_input(x, s)}

    return compute


@form("combine", "w", "t", "x")
def combine(case: Case) -> Compute:
    bits = int(case["F"])

    def compute(w: Array, t: Array, x: Array) -> Results:
        y = combining.combined(jnp.sum(combining.terms(w, t, bits), axis=0), bits)
        return {"y": y, "out": add32(x, y)}

    return compute
