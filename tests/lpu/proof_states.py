"""Rows that each rule of the proof accepts, and changes of them that one condition refuses: states."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from proof_rows import Changes, Setting, row

from compiler.program.instructions.recurrent import (
    ConvKernel,
    DeltaKernel,
    GateKernel,
    OpenKernel,
    SsmKernel,
)
from compiler.program.isa import GAIN, SHIFTED, Holds, Op
from lpu.prove.lines import Decayed, Preload, Stepped, Vector
from lpu.prove.ops.registry import PROVED
from lpu.prove.rule import RowOperands

CONV = ConvKernel(kept=3, cached=1, rows=1, sequences=1, biased=False)
SSM = SsmKernel(
    kept=4, cached=1, rows=1, sequences=1, channels=160, steps=40, groups=1, decays=1, apart=False,
    low=0.0, high=1.0,
)  # fmt: skip
DELTA = DeltaKernel(kept=4, cached=1, rows=1, sequences=1, channels=160, heads=4, groups=2)


def conv(s: Setting) -> tuple[RowOperands, Changes]:
    words = s.words(GAIN, s.gain, 0, 80)
    good = row(CONV, n=2, src=s.f32(s.x, 0, 80), preloads=words * 4)
    made = PROVED[Op.CONV].rule(s.known, good)
    assert made != PROVED[Op.CONV].rule(s.known, replace(good, kernel=replace(CONV, kept=2, biased=True)))
    return good, {
        "rows, cached sequences and rows of the step (2, 1, 1)": {"kernel": replace(CONV, rows=2)},
        "its operand holds f16": {"src": s.f16(s.x)},
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
        "10 words beside 2 lines": {"preloads": words * 5},
        "lies at other lanes": {"preloads": (*words * 3, *s.words(GAIN, s.gain, 80, 0))},
        "has 80 numbers": {"preloads": (*words * 3, *s.words(GAIN, s.short, 0, 80))},
        "reads SHIFTED where GAIN": {"preloads": (*words * 3, *s.words(SHIFTED, s.gain, 0, 80))},
        "reads tiles": {"preloads": s.run(s.codes, 0, 0)},
    }


def raw(s: Setting, *, first: int = 0, count: int = 40) -> tuple[Vector, ...]:
    """A line of the 40 raw time steps of 160 channels."""
    return (Vector(Holds.F32, s.known.terms.tensor("raw", (40,)), s.lanes(first, count)),)


def step(s: Setting) -> tuple[RowOperands, Changes]:
    decay = s.known.terms.tensor("decay", (160,))
    each = s.known.terms.tensor("each", (640,))
    through, other = s.words(GAIN, s.gain, 80), s.words(GAIN, decay, 80)
    of_states = tuple(
        Preload(GAIN, each, s.known.lanes.number(4 * np.arange(80, 160) + state), 0) for state in range(4)
    )
    all_of = replace(SSM, decays=4)
    longer = s.words(GAIN, s.known.terms.tensor("longer", (200,)), 80) * 2
    good = row(SSM, n=1, src=s.f32(s.x, 80), src2=raw(s), preloads=(*through, *other))
    apart = replace(SSM, apart=True, steps=160)
    return good, {
        "rows, cached sequences": {"kernel": replace(SSM, cached=2)},
        "its kernel says 200 channels": {"kernel": replace(SSM, channels=200), "preloads": longer},
        "are not line 0": {"n": 0},
        "its time steps does not lie whole": {"src2": raw(s, count=39)},
        "40 time steps, its kernel says 80": {"kernel": replace(SSM, steps=80)},
        "are of other channels": {"kernel": apart, "src2": s.f32(s.y, 0)},
        "160 time steps, its kernel says 80": {
            "kernel": replace(apart, channels=80, steps=80),
            "src2": s.f32(s.y, 0),
            "n": 0,
            "src": s.f32(s.narrow, 0),
            "preloads": s.words(GAIN, s.short, 0) * 2,
        },
        "160 channels with 80 time steps": {
            "kernel": replace(apart, steps=80),
            "src2": s.f32(s.narrow, 0),
            "n": 0,
            "src": s.f32(s.x, 0),
            "preloads": (*s.words(GAIN, s.gain, 0), *s.words(GAIN, decay, 0)),
        },
        "3 words beside a line": {"preloads": (*through, *other, *other)},
        "gain lies at other lanes": {"preloads": (*s.words(GAIN, s.gain, 0), *other)},
        "decay of state 0 lies at other lanes": {"preloads": (*through, *s.words(GAIN, decay, 0))},
        "each has 640 numbers": {
            "preloads": (*through, Preload(GAIN, each, s.lanes(80), 0)),
        },
        "each of state 2 lies": {
            "kernel": all_of,
            "preloads": (*through, *of_states[:2], of_states[3], of_states[2]),
        },
        "reads tiles": {"preloads": s.run(s.codes, 0)},
    }


def ssm(s: Setting) -> tuple[RowOperands, Changes]:
    terms = s.known.terms
    both = terms.tensor("both", (8,))
    lines = tuple(
        Stepped(
            Holds.STEPPED, s.x, terms.tensor("raw", (40,)), s.gain, terms.tensor("decay", (160,)), 1, i, 0
        )
        for i in range(4)
    )
    bc = (Vector(Holds.F32, both, s.lanes(0, 8)),)
    wide = (Vector(Holds.F32, terms.tensor("wide", (16,)), s.lanes(0, 16)),)
    return row(SSM, n=1, src=lines, src2=bc), {
        "rows, cached sequences": {"kernel": replace(SSM, sequences=2)},
        "is not one whole result": {"src": lines[::-1]},
        "3 lines are no blocks of 4": {"src": lines[:3]},
        "is 2 lines of channels": {"src": lines * 2},
        "of another state space step": {"index": 1},
        "is line 0, its channels are line 1": {"n": 0},
        "B and C does not lie whole": {"src2": (bc[0]._replace(lanes=s.lanes(1, 7)),)},
        "B and C have 16 lanes": {"src2": wide},
        "3 groups of 160": {
            "kernel": replace(SSM, groups=3),
            "src2": (Vector(Holds.F32, terms.tensor("three", (24,)), s.lanes(0, 24)),),
        },
        "its channels holds weight": {"src": s.chunk(Holds.WEIGHT, 0)},
    }


def numbers(s: Setting, *, first: int = 0, count: int = 8) -> tuple[Vector, ...]:
    """A line of the decays and betas of 4 heads."""
    return (Vector(Holds.F32, s.known.terms.tensor("numbers", (8,)), s.lanes(first, count)),)


def decay(s: Setting) -> tuple[RowOperands, Changes]:
    words = s.words(GAIN, s.gain, 80)
    return row(DELTA, n=1, src=s.f32(s.x, 80), src2=numbers(s), preloads=words), {
        "rows, cached sequences": {"kernel": replace(DELTA, cached=2)},
        "its kernel says 200 channels": {"kernel": replace(DELTA, channels=200)},
        "are not line 0": {"n": 0},
        "its decays and betas does not lie whole": {"src2": numbers(s, count=7)},
        "8 numbers of heads, its kernel says 2": {"kernel": replace(DELTA, heads=2)},
        "3 heads of 160": {
            "kernel": replace(DELTA, heads=3),
            "src2": (Vector(Holds.F32, s.known.terms.tensor("six", (6,)), s.lanes(0, 6)),),
        },
        "gain lies at other lanes": {"preloads": s.words(GAIN, s.gain, 0)},
        "reads tiles": {"preloads": s.run(s.codes, 0)},
    }


def delta(s: Setting) -> tuple[RowOperands, Changes]:
    terms = s.known.terms
    raw, keys = terms.tensor("numbers", (8,)), terms.tensor("keys", (16,))
    lines = tuple(Decayed(Holds.DECAYED, s.x, raw, s.gain, 1, i, 0) for i in range(3))
    both = (Vector(Holds.F32, keys, s.lanes(0, 16)),)
    return row(DELTA, n=1, src=lines, src2=both), {
        "rows, cached sequences": {"kernel": replace(DELTA, sequences=2)},
        "is not one whole result": {"src": lines[::-1]},
        "2 lines are no blocks of 3": {"src": lines[:2]},
        "is 2 lines of channels": {"src": lines * 2},
        "of another delta rule": {"index": 1},
        "is line 0, its channels are line 1": {"n": 0},
        "queries and keys does not lie whole": {"src2": (both[0]._replace(lanes=s.lanes(1, 15)),)},
        "16 lanes of keys, its kernel says 8": {"kernel": replace(DELTA, groups=1)},
        "3 groups of 4 heads": {
            "kernel": replace(DELTA, groups=3),
            "src2": (Vector(Holds.F32, terms.tensor("three", (24,)), s.lanes(0, 24)),),
        },
        "its channels holds weight": {"src": s.chunk(Holds.WEIGHT, 0)},
    }


def gate(s: Setting) -> tuple[RowOperands, Changes]:
    return row(GateKernel(), n=2, src=s.f32(s.x, 0, 80), src2=s.f32(s.y, 0, 80)), {
        "lie beside other lanes": {"src2": s.f32(s.y, 80, 0)},
        "its second operand holds f16": {"src2": s.f16(s.y)},
        "its operands have 160 and 80 lanes": {"src": s.f32(s.x, 0), "src2": s.f32(s.narrow, 0)},
    }


def gate16(s: Setting) -> tuple[RowOperands, Changes]:
    return row(OpenKernel(), n=2, src=s.f16(s.x), src2=s.f32(s.y, 0, 80)), {
        "lie beside other lanes": {"src2": s.f32(s.y, 80, 0)},
        "its first operand holds f32": {"src": s.f32(s.x, 0, 80)},
        "its second operand holds f16": {"src2": s.f16(s.y)},
        "its operands have 160 and 80 lanes": {
            "src": s.f16(s.x, 0, 80),
            "src2": s.f32(s.narrow, 0),
        },
    }


STATES: dict[Op, Callable[[Setting], tuple[RowOperands, Changes]]] = {
    Op.CONV: conv,
    Op.STEP: step,
    Op.SSM: ssm,
    Op.GATE: gate,
    Op.DECAY: decay,
    Op.DELTA: delta,
    Op.GATE16: gate16,
}
