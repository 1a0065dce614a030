"""Forms of matmuls: in parts, and with a deferred norm."""

from contract_forms.form import Case, Compute, Results, form
from jax import Array

from models.contract import deferred, numerics
from models.contract import parts as cut
from models.contract.formats import pow2
from models.contract.tree import tree32


@form("parts", "a", "w", "e")
def parts(case: Case) -> Compute:
    starts = case["starts"].tolist()

    def compute(a: Array, w: Array, e: Array) -> Results:
        leaf = cut.leaves(a, w, pow2(e), starts)
        return {"leaf": leaf, "y": tree32(leaf)}

    return compute


@form("defer", "x", "g", "k", "w", "e")
def defer(case: Case) -> Compute:
    def compute(x: Array, g: Array, k: Array, w: Array, e: Array) -> Results:
        u, clips = deferred.before(x, g, k)
        t, r = numerics.matmul(u, w, e), deferred.rms_stat(x, x.shape[-1], 1e-5)
        return {"u": u, "clips": clips, "t": t, "r": r, "y": deferred.after(t, r, k)}

    return compute


@form("deferhead", "y", "g")
def deferhead(case: Case) -> Compute:
    def compute(y: Array, g: Array) -> Results:
        return {"q": numerics.rms_norm(y.reshape(len(y), -1, len(g)), g, 1e-6).reshape(y.shape)}

    return compute
