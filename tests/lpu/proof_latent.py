"""Rows of latent attention that one condition of the proof refuses: changes of the rows in proof_rules.py."""

from dataclasses import fields, replace
from typing import Any

from proof_rows import ATTENTION, Changes, Setting, row

from compiler.program.instructions.attention import AttentionKernel, LatentAttentionKernel
from compiler.program.instructions.matmul import WriteBackKernel
from compiler.program.isa import SCALE, Holds, Op
from lpu.prove.lines import PRODUCT, Product, Statistic
from lpu.prove.ops.registry import PROVED

LATENT = LatentAttentionKernel(
    **{field.name: getattr(ATTENTION, field.name) for field in fields(AttentionKernel)}, turned=40, sigma=0.5
)


def appended(s: Setting) -> Changes:
    """KVW of a key of 160 lanes beside a latent of 80."""
    lines: dict[str, Any] = {"src": s.f16(s.x, 0, 40), "src2": s.f16(s.narrow, 0, 80)}
    whole = {**lines, "src": s.f16(s.known.terms.tensor("turned", (40,)), 0, 40)}
    assert PROVED[Op.KVW].rule(s.known, row(LATENT, **whole))
    forms: dict[str, Any] = {"window": 1, "span": 9, "scale": 0.5, "cap": 2.0, "sinks": True}
    return {"a turned key and a latent have 160 and 80 lanes": {"kernel": LATENT, **lines}} | {
        f"of {name} {value}, it has no": {"kernel": replace(LATENT, **{name: value}), **whole}
        for name, value in forms.items()
    }


def scored(s: Setting) -> Changes:
    """QK of two heads of 80 and 40 lanes, each on a line of its own."""
    latent = (*s.f16(s.x, 0, 80), *s.f16(s.x, 80, 80))
    turned = (*s.f16(s.narrow, 0, 40), *s.f16(s.narrow, 40, 40))
    wide = (*s.f16(s.x, 0, 40), *s.f16(s.x, 40, 40))
    region = s.region(keys=s.known.terms.tensor("turned", (40,)))

    def change(*lines: Any) -> dict[str, Any]:
        return {"kernel": LATENT, "src": lines, "region": region}

    return {
        "query heads (0, 1) stand beside turned lanes of heads (1, 0)": change(*latent, *turned[::-1]),
        "160 and 160 lanes of queries are no heads of 80 and 40": change(*latent, *wide),
        "3 lines are not 2 heads of 40 lanes": change(*latent, *turned, turned[0]),
    }


def closed(s: Setting) -> Changes:
    """WB of a product by two heads, each with a matrix of 80 rows and columns."""
    terms = s.known.terms
    codes, scale = terms.tensor("stack", (160, 80)), terms.tensor("stack scales", (160,))
    statistic = Statistic(Holds.STAT, s.x, 1e-5, s.gain)

    def change(row: int, column: int, **more: Any) -> dict[str, Any]:
        product = Product(PRODUCT, s.x, ((codes, s.lanes(column)),), s.lanes(row, 80, 320))
        kernel = WriteBackKernel(wide=False, products=1, **more.pop("form", {}))
        preloads = s.words(SCALE, scale, column)
        return {"n": 1, "kernel": kernel, "products": (product,), "preloads": preloads, **more}

    return {
        "columns of head 0 of stack are summed over rows 80 .. 159": change(80, 0),
        "a line holds columns of 2 heads": change(0, 40),
        "applies a statistic to a product by heads": change(0, 0, form={"normed": True}, src=(statistic,)),
        "stack is of 2 heads, a contract part of one matrix": change(0, 0, form={"part": True}),
    }
