"""Forms of matmuls: in parts, and with a deferred norm."""

from contract_forms.form import Case, Compute, Results, form
from jax import Array

from models.contract import deferral, numerics
from models.contract import parts as cut
from models.contract.formats import F64, pow2


@form("parts", "a", "w", "e")
def parts(case: Case) -> Compute:
    starts = tuple(case["starts"].tolist())

    def compute(a: Array, w: Array, e: Array) -> Results:
        return {"leaf": cut.leaves(a, w, pow2(e), starts), "y": cut.product(a, w, pow2(e), starts)}

    return compute


@form("defer", "x", "g", "k", "w", "e")
def defer(case: Case) -> Compute:
    def compute(x: Array, g: Array, k: Array, w: Array, e: Array) -> Results:
        gain = g.astype(F64) * pow2(-k)
        u, clips = deferral.apply_gain(x, gain), deferral.clips(x, gain)
        t, r = numerics.matmul(u, w, e), numerics.rms_stat(x, x.shape[-1], 1e-5)
        y = deferral.scale_rows(t, deferral.scale_stat(r, pow2(k))[:, None])
        return {"u": u, "clips": clips, "t": t, "r": r, "y": y}

    return compute


@form("deferhead", "y", "g")
def deferhead(case: Case) -> Compute:
    def compute(y: Array, g: Array) -> Results:
        return {"q": numerics.rms_norm(y.reshape(len(y), -1, len(g)), g, 1e-6).reshape(y.shape)}

    return compute
