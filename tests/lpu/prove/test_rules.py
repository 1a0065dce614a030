"""Every condition of every rule has a row that only this condition refuses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from handmade import manifest

from compiler.program.instructions.attention import AttentionKernel
from compiler.program.instructions.host import GiveKernel, TakeKernel
from compiler.program.instructions.matmul import MatmulKernel, ReduceKernel, WriteBackKernel
from compiler.program.instructions.vector import (
    AddKernel,
    ArgmaxKernel,
    ArgredKernel,
    BiasKernel,
    CastKernel,
    EmbedKernel,
    GluKernel,
    HeadNormKernel,
    NormKernel,
    RopeKernel,
    RstatKernel,
)
from compiler.program.isa import ANGLES, GAIN, SCALE, TABLE, TILE, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import (
    KV_HEAD,
    PRODUCT,
    Attending,
    Chosen,
    Chunk,
    KVHead,
    Partial,
    Peak,
    Preload,
    Product,
    Statistic,
    TileRun,
    Total,
    Vector,
    Weighted,
)
from lpu.prove.ops.registry import PROVED, register
from lpu.prove.refused import RefusedError
from lpu.prove.rule import Proved, RowOperands

Changes = dict[str, dict[str, Any]]
ATTENTION = AttentionKernel(
    head_dim=80, kv="fp16", kv_words=1, kv_stride=160, capacity=160, cached=1, group=2, chunk=80, chunks=2,
    frac=20, rows=1, sequences=1,
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

    def chunks(self, holds: int, chunk: int, of: Attending | None = None) -> tuple[Chunk, ...]:
        return tuple(Chunk(holds, of or self.of, (0, chunk), line) for line in (0, 1))

    def parts(self, holds: int, *places: int, lines: int = 8, values: int = -1) -> tuple[Weighted, ...]:
        where = tuple((0, place) for place in places)
        held = self.narrow if values < 0 else values
        return tuple(Weighted(holds, self.of, held, where, line) for line in range(lines))

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


def norm(s: Setting) -> tuple[RowOperands, Changes]:
    statistic = Statistic(Holds.STAT, s.x, 1e-5)
    good = row(
        NormKernel(), n=2, src=s.f32(s.x, 0, 80), src2=(statistic,), preloads=s.words(GAIN, s.gain, 0, 80)
    )
    return good, {
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
    good = row(
        HeadNormKernel(head_dim=80, eps=1e-5), n=2, src=s.f32(s.x, 80, 0), preloads=s.words(GAIN, s.short, 0)
    )
    return good, {
        "do not hold 2 whole heads": {"src": s.f32(s.x, 0, 40)},
        "hold no 3 heads": {"n": 3},
        "lies at other lanes": {"preloads": s.words(GAIN, s.short, 1)},
        "has 160 numbers": {"preloads": s.words(GAIN, s.gain, 0)},
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
        "its kernel says (80, 2, 40)": {"kernel": replace(kernel, positions=80)},
        "reads GAIN where ANGLES": {"preloads": s.words(GAIN, s.short, 0)},
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


def mm(s: Setting) -> tuple[RowOperands, Changes]:
    rows = s.lanes(0, 160, 320)
    good = row(MatmulKernel(k_lines=1), n=2, src=s.f16(s.x), preloads=s.run(s.codes, rows, 0, 80))
    return good, {
        "meet other lanes of x": {"preloads": s.run(s.codes, s.lanes(0, 159, 320), 0, 80)},
        "has 320 rows, its input 160": {"preloads": s.run(s.deep, rows, 0, 80)},
        "reads no 2 tiles": {"preloads": s.run(s.codes, rows, 0)},
        "is of x and of y": {"src": (*s.f16(s.x, 0, 80), *s.f16(s.y, 80, 80))},
    }


def wb(s: Setting) -> tuple[RowOperands, Changes]:
    low, high = s.lanes(0, 80, 320), s.lanes(80, 80, 320)
    both = (s.product(low, 0, 80), s.product(high, 0, 80))
    scales = s.words(SCALE, s.scale, 0, 80)
    good = row(WriteBackKernel(wide=False), n=2, src3=2, products=both, preloads=scales)
    return good, {
        "finds 2 products": {"src3": 3},
        "reads 1 lines": {"n": 1},
        "several matrices, inputs": {"products": (both[0], s.product(high, 0, 80, value=s.y))},
        "inputs or columns": {"products": (both[0], s.product(high, 80, 0))},
        "each of the 160 rows": {"products": both[:1], "src3": 1},
        "160 rows of codes once": {"products": (*both, both[0]), "src3": 3},
        "lies at other columns": {"preloads": s.words(SCALE, s.scale, 80, 0)},
        "has 80 scales": {"preloads": s.words(SCALE, s.short, 0, 80)},
        "reads no 2 scales": {"preloads": scales[:1]},
        "reads GAIN where SCALE": {"preloads": s.words(GAIN, s.scale, 0, 80)},
    }


def red(s: Setting) -> tuple[RowOperands, Changes]:
    low, high = s.lanes(0, 80, 320), s.lanes(80, 80, 320)
    one, other = s.wide(low), s.wide(high)
    good = row(ReduceKernel(parts=2), n=1, src=(*one, *other), preloads=s.words(SCALE, s.scale, 0))
    return good, {
        "160 rows of codes once": {"src": (*one, *one)},
        "several matrices": {"src": (*one, *s.wide(high, codes=s.deep))},
        "inputs or columns": {"src": (*one, *s.wide(high, first=80))},
        "not one result in order": {"src": (*one, other[1], other[0], *other[2:])},
        "another number of lines": {"src": one},
        "holds f32": {"src": (*s.f32(s.x, 0), *one[1:], *other)},
    }


def kvw(s: Setting) -> tuple[RowOperands, Changes]:
    head, other = s.f16(s.x, 0, 80), s.f16(s.x, 80, 80)
    good = row(ATTENTION, src=head, src2=head)
    striped = replace(ATTENTION, stripes=2, capacity=80, kv_stride=80)
    return good, {
        "K of head 0 and V of head 1": {"src2": other},
        "K has 160 lanes, V 80": {"src2": s.f16(s.narrow, 0, 80)},
        "whole heads": {"src": s.f16(s.x, 40, 80)},
        "stripe 1 of 1": {"src3": 1},
        "stripe -1 of 2": {"kernel": striped, "src3": -1},
        "rows of the step": {"kernel": replace(ATTENTION, rows=2)},
        "cached sequences": {"kernel": replace(ATTENTION, cached=2)},
        "the step (1, 1, 2)": {"kernel": replace(ATTENTION, sequences=2)},
        "2 words of a token": {"kernel": replace(ATTENTION, kv_words=2)},
        "has stride 80": {"kernel": replace(ATTENTION, kv_stride=80)},
        "KV in fp8": {"kernel": replace(ATTENTION, kv="fp8", kv_words=1)},
        "chunks of 81": {"kernel": replace(ATTENTION, chunk=81)},
        "no equal share": {"kernel": replace(ATTENTION, chunks=3, stripes=2)},
        "do not hold 160": {"kernel": replace(ATTENTION, chunks=1)},
        "regions of 80 tokens": {"kernel": replace(ATTENTION, capacity=80, kv_stride=80)},
        "a group of 81": {"kernel": replace(ATTENTION, group=81)},
        "weights of 34 bits": {"kernel": replace(ATTENTION, frac=34)},
        "exact for fewer": {"kernel": replace(ATTENTION, frac=30)},
    }


def qk(s: Setting) -> tuple[RowOperands, Changes]:
    good = row(ATTENTION, n=1, src=s.f16(s.x), region=s.region())
    return good, {
        "attend to KV head 1": {"region": s.region(head=1)},
        "of another attention": {"region": s.region(kernel=1)},
        "no KV region": {"region": None},
        "chunk 2 of 2": {"n": 2},
        "whole heads": {"src": s.f16(s.x, 40, 120)},
        "no groups of": {"region": s.region(keys=s.known.terms.tensor("odd", (96,)))},
    }


def smax(s: Setting) -> tuple[RowOperands, Changes]:
    both = (*s.chunks(Holds.SCORE, 0), *s.chunks(Holds.SCORE, 1))
    other = s.chunks(Holds.SCORE, 1, s.of._replace(head=1))
    return row(ATTENTION, n=2, src=both), {
        "several attentions or heads": {"src": (*both[:2], *other)},
        "no blocks of 2": {"src": both[:3]},
        "not one whole result": {"src": both[::-1]},
        "of another attention": {"index": 1},
        "holds weight": {"src": s.chunks(Holds.WEIGHT, 0)},
    }


def exp(s: Setting) -> tuple[RowOperands, Changes]:
    peaks = tuple(Peak(Holds.PEAK, s.of, frozenset({(0, i)})) for i in (0, 1))
    good = row(ATTENTION, src=s.chunks(Holds.SCORE, 1), src2=peaks)
    return good, {
        "over 1 of 2 chunks": {"src2": peaks[:1] * 2},
        "several attentions": {"src2": (peaks[0], peaks[1]._replace(of=s.of._replace(queries=s.y)))},
        "maxima holds score": {"src2": s.chunks(Holds.SCORE, 0)},
    }


def pv(s: Setting) -> tuple[RowOperands, Changes]:
    good = row(ATTENTION, n=1, src=s.chunks(Holds.WEIGHT, 1), region=s.region())
    return good, {
        "meet values of (0, 0)": {"n": 0},
        "meet values of (1, 1)": {"region": s.region(stripe=1)},
        "meet head 1": {"region": s.region(head=1)},
        "of y": {"region": s.region(keys=s.y)},
        "holds score": {"src": s.chunks(Holds.SCORE, 1)},
        "of another attention": {"region": s.region(kernel=1)},
    }


def totals(s: Setting, *places: int) -> tuple[Total, ...]:
    return tuple(Total(Holds.SUM, s.of, ((0, place),)) for place in places)


def aout(s: Setting) -> tuple[RowOperands, Changes]:
    parts = (*s.parts(Holds.PART, 0), *s.parts(Holds.PART, 1))
    return row(ATTENTION, n=2, src=parts, src2=totals(s, 0, 1)), {
        "of other chunks": {"src2": totals(s, 0, 0)},
        "not each of 2 once": {"src": parts[:8] * 2, "src2": totals(s, 0, 0)},
        "adds 1 chunks": {"n": 1, "src": parts[:8], "src2": totals(s, 0)},
        "adds 3 chunks": {"n": 3, "src": (*parts, *parts[:8]), "src2": totals(s, 0, 1, 0)},
        "several values": {"src": (*parts[:8], *s.parts(Holds.PART, 1, values=s.y))},
        "not one whole result": {"src": (*parts[8:12], *parts[:4], *parts[8:])},
        "sums holds part": {"src2": parts[:2]},
    }


def asum(s: Setting) -> tuple[RowOperands, Changes]:
    return row(ATTENTION, n=1, src=s.parts(Holds.PART, 0), src2=totals(s, 0)), {
        "of other chunks": {"src2": totals(s, 1)},
        "several attentions": {"src2": (totals(s, 0)[0]._replace(of=s.of._replace(queries=s.y)),)},
    }


def aend(s: Setting) -> tuple[RowOperands, Changes]:
    one, other = s.parts(Holds.MERGED, 0, lines=9), s.parts(Holds.MERGED, 1, lines=9)
    return row(ATTENTION, n=2, src=(*one, *other)), {
        "not each of 2 once": {"src": (*one, *one)},
        "adds 1 chunks": {"n": 1, "src": one},
        "several values": {"src": (*one, *s.parts(Holds.MERGED, 1, lines=9, values=s.y))},
        "no blocks of 9": {"src": one[:8]},
    }


def take(s: Setting) -> tuple[RowOperands, Changes]:
    s.known.message, s.known.wires = s.message, ("fp16", "f32")
    return row(TakeKernel(wire="fp16", host_slot=1), n=1, src3=0), {
        "beyond the 160 lanes": {"src3": 1},
        "takes line -1": {"src3": -1},
        "its wire is fp8": {"kernel": TakeKernel(wire="fp8", host_slot=1)},
    }


def give(s: Setting) -> tuple[RowOperands, Changes]:
    s.known.message, s.known.wires = s.message, ("fp16", "f32")
    return row(GiveKernel(wire="f32", host_slot=1), n=1, src3=0, src=s.f32(s.x, 0)), {
        "holds f16": {"src": s.f16(s.x)},
        "its wire is fp16": {"kernel": GiveKernel(wire="fp16", host_slot=1)},
    }


RULES: dict[Op, Callable[[Setting], tuple[RowOperands, Changes]]] = {
    Op.EMBED: embed, Op.RSTAT: rstat, Op.NORM: norm, Op.HNORM: hnorm, Op.ROPE: rope, Op.CAST: cast,
    Op.ADD: add, Op.BIAS: bias, Op.GLU: glu, Op.ARGMAX: argmax, Op.ARGRED: argred, Op.MM: mm, Op.WB: wb,
    Op.RED: red, Op.KVW: kvw, Op.QK: qk, Op.SMAX: smax, Op.EXP: exp, Op.PV: pv, Op.AOUT: aout,
    Op.ASUM: asum, Op.AEND: aend, Op.TAKE: take, Op.GIVE: give,
}  # fmt: skip


@pytest.mark.parametrize("op", RULES)
def test_a_row_is_accepted_and_refused_when_one_condition_fails(op: Op) -> None:
    setting = Setting()
    good, changes = RULES[op](setting)
    assert PROVED[op].rule(setting.known, good)
    for words, changed in changes.items():
        with pytest.raises(RefusedError) as refused:
            PROVED[op].rule(setting.known, replace(good, **changed))
        assert words in str(refused.value), (words, str(refused.value))


def test_copies_are_the_lines_and_moves_of_kv_are_no_rows_of_a_step() -> None:
    setting = Setting()
    lines = setting.f32(setting.x, 0)
    for op in (Op.SEND, Op.FORWARD):
        assert PROVED[op].rule(setting.known, row(None, src=lines)) == lines
    for op in (Op.KVIN, Op.KVOUT):
        with pytest.raises(RefusedError, match="no row of a step"):
            PROVED[op].rule(setting.known, row(None))
    assert set(RULES) | {Op.SEND, Op.FORWARD, Op.KVIN, Op.KVOUT} == set(Op)


def test_maxima_may_repeat_and_sums_may_not() -> None:
    setting = Setting()
    of = setting.chunks(Holds.SCORE, 0)
    once, twice = (PROVED[Op.SMAX].rule(setting.known, row(ATTENTION, src=of * n, n=n)) for n in (1, 2))
    assert once == twice
    one = Chosen(Holds.PICK, setting.x, frozenset({0}))
    assert PROVED[Op.ARGRED].rule(setting.known, row(ArgredKernel(), n=2, src=(one, one))) == (one,)
    added = row(ATTENTION, n=2, src=setting.parts(Holds.PART, 0) * 2, src2=totals(setting, 0, 0))
    (first, *_) = PROVED[Op.ASUM].rule(setting.known, added)
    assert first.places == ((0, 0), (0, 0))


def test_an_opcode_has_one_rule() -> None:
    with pytest.raises(ValueError, match="has a rule"):
        register(Proved(op=Op.ADD, rule=lambda known, row: ()))
    with pytest.raises(ValueError, match="is not from 0"):
        register(Proved(op=999, rule=lambda known, row: ()))
    assert register(PROVED[Op.ADD]) is PROVED[Op.ADD]
