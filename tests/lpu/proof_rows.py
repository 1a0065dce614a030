"""Rows that each rule of the proof accepts, and changes of them that one condition refuses: vectors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from handmade import manifest

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.norms import HeadNormKernel, NormKernel, PrescaleKernel, RstatKernel
from compiler.program.instructions.vector import (
    AddKernel,
    ArgmaxKernel,
    ArgredKernel,
    BiasKernel,
    CapKernel,
    CastKernel,
    EmbedKernel,
    GluKernel,
    LaneMulKernel,
    MadKernel,
    MulKernel,
    RopeKernel,
)
from compiler.program.isa import ANGLES, GAIN, SHIFTED, TABLE, TILE, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import (
    KV_HEAD,
    PRODUCT,
    Attending,
    Blocks,
    Chosen,
    Chunk,
    KVHead,
    Partial,
    Preload,
    Product,
    Statistic,
    TileRun,
    Vector,
)
from lpu.prove.rule import RowOperands

Changes = dict[str, dict[str, Any]]
ATTENTION = AttentionKernel(
    head_dim=80, kv="fp16", kv_words=1, kv_stride=160, capacity=160, cached=1, run=80, group=2, block=80,
    chunk=80, chunks=2, rows=1, sequences=1,
)  # fmt: skip


class Setting:
    """Terms of a model of 160 features, two query heads of 80 on one KV head, and lines of them."""

    def __init__(self) -> None:
        self.known = known = Known(manifest(), context=160)
        terms = known.terms
        self.x, self.y = (terms.tensor(name, (160,)) for name in "xy")
        self.narrow = terms.tensor("narrow", (80,))
        self.gain, self.short = terms.tensor("gain", (160,)), terms.tensor("short", (80,))
        self.codes, self.scale = terms.tensor("codes", (160, 160)), terms.tensor("scale", (160,))
        self.deep = terms.tensor("deep", (320, 160))
        self.table, self.angles = terms.tensor("table", (16, 160)), terms.tensor("angles", (160, 2, 40))
        self.of = Attending(self.x, (0, 1), self.narrow, 0, 0)
        self.message = terms.message(0, 160)

    def lanes(self, first: int, count: int = 80, size: int = 80) -> int:
        """Lanes that hold first .. first+count-1, then padding."""
        entries = np.concatenate([np.arange(first, first + count), np.full(size - count, -1)])
        return self.known.lanes.number(entries)

    def f32(self, value: int, *firsts: int) -> tuple[Vector, ...]:
        return tuple(Vector(Holds.F32, value, self.lanes(one)) for one in firsts)

    def f16(self, value: int, first: int = 0, count: int = 160) -> tuple[Vector, ...]:
        return (Vector(Holds.F16, value, self.lanes(first, count, 160)),)

    def words(self, kind: int, tensor: int, *firsts: int) -> tuple[Preload, ...]:
        return tuple(Preload(kind, tensor, self.lanes(one), 0) for one in firsts)

    def run(self, tensor: int, rows: int, *columns: int) -> TileRun:
        return TileRun(TILE, rows, tuple((tensor, self.lanes(one)) for one in columns))

    def chunk(self, holds: int, block: int, of: Attending | None = None) -> tuple[Chunk, ...]:
        """Two lines of scores, or of weights and a third of exponents."""
        lines = range(2 + (holds == Holds.WEIGHT))
        return tuple(Chunk(holds, of or self.of, block, line) for line in lines)

    def node(self, first: int, stop: int, values: int = -1) -> tuple[Blocks, ...]:
        held = self.narrow if values < 0 else values
        return tuple(Blocks(Holds.BLOCKS, self.of, held, first, stop, line) for line in range(3))

    def region(self, **changes: Any) -> KVHead:
        return KVHead(KV_HEAD, self.narrow, self.narrow, 0, 0, 0)._replace(**changes)

    def product(self, ks: int, *columns: int, value: int = -1) -> Product:
        tiles = tuple((self.codes, self.lanes(one)) for one in columns)
        return Product(PRODUCT, self.x if value < 0 else value, tiles, ks)

    def wide(self, *ks: int, first: int = 0, codes: int = -1) -> tuple[Partial, ...]:
        held = self.codes if codes < 0 else codes
        return tuple(Partial(Holds.WIDE, self.x, held, self.lanes(first), ks, i) for i in range(4))


def row(kernel: Any, **given: Any) -> RowOperands:
    none: dict[str, Any] = {"index": 0, "n": 1, "src3": -1, "src": (), "src2": (), "preloads": ()}
    fields: dict[str, Any] = none | {"region": None, "products": ()} | given
    return RowOperands(kernel=kernel, **fields)


def embed(s: Setting) -> tuple[RowOperands, Changes]:
    columns = s.known.lanes.number(np.arange(160))
    good = row(EmbedKernel(vocab=16, stride=1), n=2, preloads=(Preload(TABLE, s.table, columns, 2),))
    return good, {
        "its kernel says 15 rows": {"kernel": EmbedKernel(vocab=15, stride=1)},
        "takes 1 lines of a table of 2": {"n": 1},
        "positions up to 159, the table has 16": {"kernel": EmbedKernel(vocab=16, stride=1, positions=True)},
        "reads GAIN where TABLE": {"preloads": (Preload(GAIN, s.gain, columns, 2),)},
        "reads 0 preloaded values": {"preloads": ()},
        "reads tiles": {"preloads": s.run(s.codes, 0, 0)},
    }


def rstat(s: Setting) -> tuple[RowOperands, Changes]:
    wide = s.known.terms.tensor("wide", (32_880,))
    lines = tuple(Vector(Holds.F32, wide, s.lanes(80 * i)) for i in range(411))
    return row(RstatKernel(width=160, eps=1e-5), n=2, src=s.f32(s.x, 0, 80)), {
        "do not hold each of 160": {"src": s.f32(s.x, 0, 0)},
        "each of 160 features once": {"src": s.f32(s.x, 0)},
        "its kernel says 159": {"kernel": RstatKernel(width=159, eps=1e-5)},
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
        "have no exact sum": {"src": lines, "n": 411, "kernel": RstatKernel(width=32_880, eps=1e-5)},
        "holds f16, must be f32": {"src": s.f16(s.x)},
    }


def pre(s: Setting) -> tuple[RowOperands, Changes]:
    good = row(PrescaleKernel(), n=2, src=s.f32(s.x, 0, 80), preloads=s.words(SHIFTED, s.gain, 0, 80))
    return good, {
        "reads GAIN where SHIFTED": {"preloads": s.words(GAIN, s.gain, 0, 80)},
        "lies at other lanes": {"preloads": s.words(SHIFTED, s.gain, 80, 0)},
        "its operand holds f16": {"src": s.f16(s.x)},
    }


def norm(s: Setting) -> tuple[RowOperands, Changes]:
    statistic = Statistic(Holds.STAT, s.x, 1e-5, -1)
    good = row(
        NormKernel(), n=2, src=s.f32(s.x, 0, 80), src2=(statistic,), preloads=s.words(GAIN, s.gain, 0, 80)
    )
    return good, {
        "is for products of a shifted gain": {"src2": (statistic._replace(gain=s.gain),)},
        "its statistic is of y": {"src2": (statistic._replace(value=s.y),)},
        "its statistic holds f32": {"src2": s.f32(s.x, 0)},
        "lies at other lanes": {"preloads": s.words(GAIN, s.gain, 80, 0)},
        "gain is of gain and of short": {
            "preloads": (*s.words(GAIN, s.gain, 0), *s.words(GAIN, s.short, 80))
        },
        "has 80 numbers": {"preloads": s.words(GAIN, s.short, 0, 80)},
        "reads 1 preloaded values": {"preloads": s.words(GAIN, s.gain, 0)},
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
    }


def hnorm(s: Setting) -> tuple[RowOperands, Changes]:
    own = HeadNormKernel(head_dim=80, eps=1e-5, f32=True, own=True)
    good = row(
        HeadNormKernel(head_dim=80, eps=1e-5), n=2, src=s.f32(s.x, 80, 0), preloads=s.words(GAIN, s.short, 0)
    )
    return good, {
        "do not hold 2 whole heads": {"src": s.f32(s.x, 0, 40)},
        "hold no 3 heads": {"n": 3},
        "lies at other lanes": {"preloads": s.words(GAIN, s.short, 1)},
        "gain lies at other lanes": {"kernel": own, "preloads": s.words(GAIN, s.gain, 0, 80)},
        "short has 80 numbers": {"kernel": own, "preloads": s.words(GAIN, s.short, 80, 0)},
        "by gains of each": {"kernel": replace(own, f32=False), "preloads": s.words(GAIN, s.gain, 80, 0)},
        "has 160 numbers": {"preloads": s.words(GAIN, s.gain, 0)},
        "hold no 3 heads of": {"kernel": replace(own, length=True), "n": 3, "preloads": ()},
        "are no such heads": {"kernel": HeadNormKernel(head_dim=48, eps=1e-5), "n": 1, "src": ends(s)},
    }


def ends(s: Setting) -> tuple[Vector, ...]:
    """Lanes 144 .. 191 of a vector of 160."""
    return (Vector(Holds.F32, s.x, s.lanes(144, 48)),)


def rope(s: Setting) -> tuple[RowOperands, Changes]:
    kernel = RopeKernel(head_dim=80, input="f32", positions=160, stride=1)
    good = row(kernel, n=2, src=s.f32(s.x, 0, 80), preloads=(Preload(ANGLES, s.angles, -1, 0),))
    return good, {
        "do not hold 2 whole heads": {"src": s.f32(s.x, 40, 120)},
        "its kernel says (200, 2, 40)": {"kernel": replace(kernel, positions=200)},
        "the table has 80 rows": {
            "kernel": replace(kernel, positions=80),
            "preloads": (Preload(ANGLES, s.known.terms.tensor("few", (80, 2, 40)), -1, 0),),
        },
        "reads GAIN where ANGLES": {"preloads": s.words(GAIN, s.short, 0)},
        "reads 2 preloaded values": {"preloads": (Preload(ANGLES, s.angles, -1, 0),) * 2},
        "are no such heads": {
            "kernel": replace(kernel, head_dim=48),
            "n": 1,
            "src": ends(s),
            "preloads": (Preload(ANGLES, s.known.terms.tensor("turns", (160, 2, 24)), -1, 0),),
        },
        "holds f32, must be f16": {"kernel": replace(kernel, input="f16")},
    }


def cast(s: Setting) -> tuple[RowOperands, Changes]:
    return row(CastKernel(), n=2, src=s.f32(s.x, 0, 80)), {
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
        "holds f16": {"src": s.f16(s.x)},
        "has no lines": {"src": ()},
    }


def add(s: Setting) -> tuple[RowOperands, Changes]:
    return row(AddKernel(), n=2, src=s.f32(s.x, 0, 80), src2=s.f32(s.y, 0, 80)), {
        "lie beside other lanes": {"src2": s.f32(s.y, 80, 0)},
        "have 160 and 80 lanes": {"src2": s.f32(s.narrow, 0, 80)},
        "is of y and of x": {"src2": (*s.f32(s.y, 0), *s.f32(s.x, 80))},
    }


def bias(s: Setting) -> tuple[RowOperands, Changes]:
    return row(BiasKernel(), n=2, src=s.f32(s.x, 0, 80), preloads=s.words(GAIN, s.gain, 0, 80)), {
        "lies at other lanes": {"preloads": s.words(GAIN, s.gain, 80, 0)},
        "has 80 numbers": {"preloads": s.words(GAIN, s.short, 0, 80)},
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
    }


def vmul(s: Setting) -> tuple[RowOperands, Changes]:
    return row(LaneMulKernel(), n=2, src=s.f32(s.x, 0, 80), preloads=s.words(GAIN, s.gain, 0, 80)), {
        "lies at other lanes": {"preloads": s.words(GAIN, s.gain, 80, 0)},
        "has 80 numbers": {"preloads": s.words(GAIN, s.short, 0, 80)},
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
    }


def mul(s: Setting) -> tuple[RowOperands, Changes]:
    return row(MulKernel(factor=0.5), n=2, src=s.f32(s.x, 0, 80)), {
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
        "holds f16": {"src": s.f16(s.x)},
    }


def cap(s: Setting) -> tuple[RowOperands, Changes]:
    return row(CapKernel(cap=30.0), n=2, src=s.f32(s.x, 0, 80)), {
        "is of x and of y": {"src": (*s.f32(s.x, 0), *s.f32(s.y, 80))},
        "holds f16": {"src": s.f16(s.x)},
    }


def mad(s: Setting) -> tuple[RowOperands, Changes]:
    return row(MadKernel(factor=0.5), n=2, src=s.f32(s.x, 0, 80), src2=s.f32(s.y, 0, 80)), {
        "lie beside other lanes": {"src2": s.f32(s.y, 80, 0)},
        "have 160 and 80 lanes": {"src2": s.f32(s.narrow, 0, 80)},
    }


def glu(s: Setting) -> tuple[RowOperands, Changes]:
    return row(GluKernel(activation="silu"), n=2, src=s.f32(s.x, 0, 80), src2=s.f32(s.y, 0, 80)), {
        "lie beside other lanes": {"src2": s.f32(s.y, 80, 0)},
        "have 160 and 80 lanes": {"src2": s.f32(s.narrow, 0, 80)},
    }


def argmax(s: Setting) -> tuple[RowOperands, Changes]:
    huge = s.known.terms.tensor("huge", ((1 << 24) + 1,))
    wide = ArgmaxKernel(vocab=(1 << 24) + 1)
    return row(ArgmaxKernel(vocab=160), n=1, src3=1, src=s.f32(s.x, 80)), {
        "is not line 0": {"src3": 0},
        "its kernel says 159": {"kernel": ArgmaxKernel(vocab=159)},
        "f32 does not count": {"kernel": wide, "src": (Vector(Holds.F32, huge, s.lanes(80)),)},
    }


def argred(s: Setting) -> tuple[RowOperands, Changes]:
    one, other = (Chosen(Holds.PICK, s.x, frozenset({line})) for line in (0, 1))
    return row(ArgredKernel(), n=2, src=(one, other)), {
        "is of x and of y": {"src": (one, other._replace(value=s.y))},
        "holds f32": {"src": s.f32(s.x, 0)},
    }


VECTORS: dict[Op, Callable[[Setting], tuple[RowOperands, Changes]]] = {
    Op.EMBED: embed, Op.RSTAT: rstat, Op.NORM: norm, Op.PRE: pre, Op.HNORM: hnorm, Op.ROPE: rope,
    Op.CAST: cast, Op.CAP: cap, Op.VMUL: vmul,
    Op.ADD: add, Op.BIAS: bias, Op.MUL: mul, Op.MAD: mad, Op.GLU: glu, Op.ARGMAX: argmax, Op.ARGRED: argred,
}  # fmt: skip
