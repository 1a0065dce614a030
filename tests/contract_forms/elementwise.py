"""Forms of functions of one number, of norms, of RoPE, factors and samples."""

import jax.numpy as jnp
import numpy as np
from contract_forms.form import Case, Compute, Results, form
from jax import Array

from models.contract import numerics, rotary
from models.contract.formats import rn16
from models.contract.functions import curves, gates
from models.contract.functions.erf import gelu_erf
from models.contract.functions.exponential import exp32
from models.contract.functions.quadratic import table as quadratic
from models.contract.norms.layer import layer_norm32
from models.contract.norms.square import l2_norm
from models.contract.norms.square import rms32 as rms_norm32
from models.contract.sampling import Sampling, draw
from models.contract.sampling import philox as random_words
from models.contract.vocabulary.multiply import scaled, scaled_sum


@form("table")
def table(case: Case) -> Compute:
    return lambda: {name: jnp.asarray(quadratic(name)) for name in ("log1", "tanh", "phi")}


@form("tanh", "x")
def tanh(case: Case) -> Compute:
    return lambda x: {"y": curves.tanh(x)}


@form("softcap", "x")
def softcap(case: Case) -> Compute:
    return lambda x: {"y50": curves.softcap(x, 50.0), "y30": curves.softcap(x, 30.0)}


@form("scalar", "x")
def scalar(case: Case) -> Compute:
    def compute(x: Array) -> Results:
        below = exp32(-jnp.abs(x))
        return {"softplus": curves.softplus(x), "sigmoid": curves.sigmoid(x), "exp32": below}

    return compute


@form("act", "g", "u")
def act(case: Case) -> Compute:
    def compute(g: Array, u: Array) -> Results:
        squared = gates.relu2(g)
        plain = {"gelu_erf": gelu_erf(g), "relu2": squared, "relu2_16": rn16(squared)}
        return {**plain, "swiglu_oai": gates.swiglu_oai(g, u), "swiglu_clip10": gates.swiglu_clipped(g, u)}

    return compute


@form("layernorm", "x", "g", "b")
def layernorm(case: Case) -> Compute:
    eps = float(case["eps"])

    def compute(x: Array, g: Array, b: Array) -> Results:
        f = layer_norm32(x, g, b, eps)
        return {"f": f, "y": rn16(f)}

    return compute


@form("rms32", "x", "g")
def rms32(case: Case) -> Compute:
    return lambda x, g: {"y": rms_norm32(x, g, 1e-6)}


@form("l2norm", "x")
def l2norm(case: Case) -> Compute:
    return lambda x: {"y": l2_norm(x)}


@form("mad", "x", "y")
def mad(case: Case) -> Compute:
    m = float(case["m"])

    def compute(x: Array, y: Array) -> Results:
        embed = scaled(x.astype(jnp.float16).astype(jnp.float32), m)
        return {"residual": scaled_sum(x, y, m), "embed": embed, "logit": scaled(x, 1 / m)}

    return compute


@form("rope", "x")
def rope(case: Case) -> Compute:
    turns = rotary.table(case["freq"], case["positions"], float(case["factor"]))
    lanes = 2 * len(case["freq"])

    def compute(x: Array) -> Results:
        turned = rn16(numerics.rope(x[:, :lanes], jnp.asarray(turns)))
        return {"table": jnp.asarray(turns), "y": jnp.concatenate([turned, rn16(x[:, lanes:])], axis=1)}

    return compute


@form("philox")
def philox(case: Case) -> Compute:
    rows = zip(case["counter"].tolist(), case["key"].tolist(), strict=True)
    found = np.array([random_words(tuple(counter), tuple(key)) for counter, key in rows], np.uint32)
    return lambda: {"out": jnp.asarray(found)}


@form("sample")
def sample(case: Case) -> Compute:
    """Drawn on the host: sampling is numpy, token by token."""
    found = np.array(
        [
            draw(z, _how(case, seed), position)
            for z, seed, position in zip(
                case["z"], case["seed"].tolist(), case["position"].tolist(), strict=True
            )
        ]
    )
    token, mass, kept = (jnp.asarray(column) for column in found.T)
    return lambda: {"token": token.astype(jnp.int32), "mass": mass, "kept": kept.astype(jnp.int32)}


def _how(case: Case, seed: int) -> Sampling:
    return Sampling(
        seed=seed & (1 << 64) - 1,
        temperature=float(case["temperature"]),
        top_k=int(case["k"]),
        top_p=float(case["top_p"]),
        min_p=float(case["min_p"]),
    )
