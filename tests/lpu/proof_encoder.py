"""Rows of layer norms that the proof accepts, and changes of them that one condition refuses."""

from collections.abc import Callable
from dataclasses import replace

from proof_rows import Changes, Setting, row

from compiler.program.instructions.norms import LayerNormKernel, MomentsKernel
from compiler.program.isa import GAIN, SHIFTED, Holds, Op
from lpu.prove.lines import LayerMoments, Statistic, Vector
from lpu.prove.ops.registry import PROVED
from lpu.prove.rule import RowOperands

WIDE = (1 << 20) + 80


def moments(s: Setting) -> tuple[RowOperands, Changes]:
    kernel = MomentsKernel(width=160, eps=1e-12)
    wide = (Vector(Holds.F32, s.known.terms.tensor("wide", (WIDE,)), s.lanes(0, WIDE, WIDE)),)
    return row(kernel, n=2, src=s.f32(s.x, 0, 80)), {
        "do not hold each of 160": {"src": s.f32(s.x, 0, 0)},
        "its kernel says 159": {"kernel": replace(kernel, width=159)},
        "have no exact sums": {"src": wide, "n": WIDE // 80, "kernel": replace(kernel, width=WIDE)},
        "holds f16, must be f32": {"src": s.f16(s.x)},
    }


def lnorm(s: Setting) -> tuple[RowOperands, Changes]:
    found = LayerMoments(Holds.MOMENTS, s.x, 1e-12)
    gain, other = s.words(GAIN, s.gain, 0, 80), s.words(GAIN, s.known.terms.tensor("bias", (160,)), 0, 80)
    good = row(LayerNormKernel(), n=2, src=s.f32(s.x, 0, 80), src2=(found,), preloads=gain + other)
    made = PROVED[Op.LNORM].rule(s.known, good)
    assert made != PROVED[Op.LNORM].rule(s.known, replace(good, preloads=other + gain))
    return good, {
        "its moments are of y": {"src2": (found._replace(value=s.y),)},
        "its moments holds stat": {"src2": (Statistic(Holds.STAT, s.x, 1e-12, -1),)},
        "6 words beside 2 lines": {"preloads": gain + other + other},
        "lies at other lanes": {"preloads": (*gain, *reversed(other))},
        "has 80 numbers": {"preloads": (*gain, *s.words(GAIN, s.short, 0, 80))},
        "reads SHIFTED where GAIN": {"preloads": (*gain, *s.words(SHIFTED, s.gain, 0, 80))},
        "reads tiles": {"preloads": s.run(s.codes, 0, 0)},
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
    }


ENCODERS: dict[Op, Callable[[Setting], tuple[RowOperands, Changes]]] = {
    Op.MOMENTS: moments,
    Op.LNORM: lnorm,
}
