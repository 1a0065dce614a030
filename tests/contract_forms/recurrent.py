"""Forms of layers with a state."""

import jax.numpy as jnp
from contract_forms.form import Case, Compute, Results, form
from jax import Array

from models.contract.functions.curves import softplus
from models.contract.norms.square import l2_norm
from models.contract.recurrent import delta as rule
from models.contract.recurrent import state_space
from models.contract.recurrent.convolution import convolve


@form("conv", "x", "state", "w", "b")
def conv(case: Case) -> Compute:
    def compute(x: Array, state: Array, w: Array, b: Array) -> Results:
        y, out = convolve(x, state, w, b)
        return {"y": y, "out_state": out}

    return compute


@form("ssm", "x", "raw", "A", "B", "C", "D", "h")
def ssm(case: Case) -> Compute:
    def compute(x: Array, raw: Array, a: Array, b: Array, c: Array, d: Array, h: Array) -> Results:
        dt = jnp.broadcast_to(softplus(raw), x.shape)
        out, y = state_space.scan(h, x, dt, a, b, c, d)
        return {"dt": dt, "y": y, "out_h": out}

    return compute


@form("delta", "qn", "kn", "v", "g", "beta", "S", "q", "k", "A", "raw")
def delta(case: Case) -> Compute:
    """The last case is of the rule alone: its unit vectors and decay do not come from q, k and raw."""
    normed = bool(case["beta"].any())

    def compute(*arrays: Array) -> Results:
        qn, kn, v, g, beta, s, q, k, a, raw = arrays
        out, o = rule.scan(s, qn, kn, v, g, beta)
        rest = {"qn": l2_norm(q), "kn": l2_norm(k), "g": rule.decay(raw, a, jnp.zeros_like(a))}
        return {"o": o, "out_S": out} | (rest if normed else {})

    return compute
