"""Forms of matmuls whose weights are not e4m3 with a power of two per column."""

from contract_forms.form import Case, Compute, Results, form
from jax import Array

from models.contract import numerics
from models.contract.dot16 import matmul16 as multiply16
from models.contract.formats import F64
from models.contract.scales.block import matmul_blocks
from models.contract.scales.int4 import matmul_int4
from models.contract.scales.mxfp4 import from_mxfp4


@form("colscale", "a", "w", "s")
def colscale(case: Case) -> Compute:
    def compute(a: Array, w: Array, s: Array) -> Results:
        return {"y": numerics.scale_wide(numerics.wide(a, w), s.astype(F64))}

    return compute


@form("blockscale", "a", "w", "s")
def blockscale(case: Case) -> Compute:
    rows, columns = int(case["bk"]), int(case["bn"])

    def compute(a: Array, w: Array, s: Array) -> Results:
        return {"y": matmul_blocks(a, w, s, rows, columns)}

    return compute


@form("mxfp", "codes", "scale", "a")
def mxfp4(case: Case) -> Compute:
    def compute(codes: Array, scale: Array, a: Array) -> Results:
        w, e, changed = from_mxfp4(codes, scale)
        return {"w": w, "e": e, "changed": changed, "y": numerics.matmul(a, w, e)}

    return compute


@form("int4", "a", "q", "s")
def int4(case: Case) -> Compute:
    def compute(a: Array, q: Array, s: Array) -> Results:
        return {"y": matmul_int4(a, q, s)}

    return compute


@form("matmul16", "a", "w", "e")
def matmul16(case: Case) -> Compute:
    def compute(a: Array, w: Array, e: Array) -> Results:
        return {"y": multiply16(a, w, e)}

    return compute
