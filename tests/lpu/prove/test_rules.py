"""Every condition of every rule has a row that only this condition refuses."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from proof_rows import ATTENTION, VECTORS, Changes, Setting, row

from compiler.program.instructions.host import GiveKernel, TakeKernel
from compiler.program.instructions.matmul import (
    MatmulKernel,
    ReduceKernel,
    TreeKernel,
    WriteBackKernel,
    tree_kernel,
)
from compiler.program.instructions.vector import (
    ArgredKernel,
)
from compiler.program.isa import GAIN, SCALE, Holds, Op
from lpu.prove.lines import (
    Chosen,
    Peak,
    Statistic,
    Total,
    TreeNode,
)
from lpu.prove.ops.registry import PROVED, register
from lpu.prove.refused import RefusedError
from lpu.prove.rule import Proved, RowOperands


def mm(s: Setting) -> tuple[RowOperands, Changes]:
    rows = s.lanes(0, 160, 320)
    good = row(MatmulKernel(k_lines=1), n=2, src=s.f16(s.x), preloads=s.run(s.codes, rows, 0, 80))
    return good, {
        "meet other lanes of x": {"preloads": s.run(s.codes, s.lanes(1, 159, 320), 0, 80)},
        "has 320 rows, its input 160": {"preloads": s.run(s.deep, rows, 0, 80)},
        "reads no 2 tiles": {"preloads": s.run(s.codes, rows, 0)},
        "is of x and of y": {"src": (*s.f16(s.x, 0, 80), *s.f16(s.y, 80, 80))},
    }


def _closing(products: int, **fields: bool) -> WriteBackKernel:
    return WriteBackKernel(wide=False, products=products, **fields)


def wb(s: Setting) -> tuple[RowOperands, Changes]:
    low, high = s.lanes(0, 80, 320), s.lanes(80, 80, 320)
    both = (s.product(low, 0, 80), s.product(high, 0, 80))
    scales = s.words(SCALE, s.scale, 0, 80)
    good = row(_closing(2), n=2, products=both, preloads=scales)
    statistic = Statistic(Holds.STAT, s.x, 1e-5, s.gain)
    return good, {
        "not for products of a shifted gain": {
            "kernel": _closing(2, normed=True),
            "src": (statistic._replace(gain=-1),),
        },
        "its statistic holds f32": {"kernel": _closing(2, normed=True), "src": s.f32(s.x, 0)},
        "applies a statistic to a part": {
            "kernel": _closing(2, normed=True, part=True),
            "src": (statistic,),
        },
        "consecutive rows": {"kernel": _closing(3, part=True), "products": (*both, both[0])},
        "finds 2 products": {"kernel": _closing(3)},
        "reads 1 lines": {"n": 1},
        "several matrices, inputs": {"products": (both[0], s.product(high, 0, 80, value=s.y))},
        "inputs or columns": {"products": (both[0], s.product(high, 80, 0))},
        "each of the 160 rows": {"products": both[:1], "kernel": _closing(1)},
        "160 rows of codes once": {"products": (*both, both[0]), "kernel": _closing(3)},
        "lies at other columns": {"preloads": s.words(SCALE, s.scale, 80, 0)},
        "has 80 scales": {"preloads": s.words(SCALE, s.short, 0, 80)},
        "reads no 2 scales": {"preloads": scales[:1]},
        "reads GAIN where SCALE": {"preloads": s.words(GAIN, s.scale, 0, 80)},
    }


def tree(s: Setting) -> tuple[RowOperands, Changes]:
    def node(*starts: int, **fields: int) -> TreeNode:
        made = TreeNode(Holds.NODE, s.x, s.codes, s.scale, s.lanes(0), starts)
        return made._replace(**fields)

    nodes = (node(0, 40, 80), node(80, 120, 160))
    good = row(tree_kernel((2, 2), whole=True), src=nodes)
    return good, {
        "parts 1 .. 2 are no node": {"kernel": tree_kernel((1, 2, 1), whole=True), "src": (*nodes, nodes[0])},
        "another number of lines": {"src": nodes[:1]},
        "several products or columns": {"src": (nodes[0], node(80, 120, 160, columns=s.lanes(80)))},
        "products or columns": {"src": (nodes[0], node(80, 120, 160, value=s.y))},
        "takes a node of 1 parts for one of 2": {"src": (nodes[0], node(80, 160))},
        "begins at row 40 follows": {"src": (nodes[0], node(40, 120, 160))},
        "rows 0 .. 120 of 160": {"src": (nodes[0], node(80, 100, 120))},
        "begin at no": {"kernel": TreeKernel(leaves=4, begins=0b100, whole=True), "src": nodes[:1]},
        "holds f32": {"src": (*s.f32(s.x, 0), nodes[1])},
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


RULES: dict[Op, Callable[[Setting], tuple[RowOperands, Changes]]] = VECTORS | {
    Op.MM: mm, Op.WB: wb, Op.RED: red, Op.TREE: tree, Op.KVW: kvw, Op.QK: qk, Op.SMAX: smax,
    Op.EXP: exp, Op.PV: pv,
    Op.AOUT: aout, Op.ASUM: asum, Op.AEND: aend, Op.TAKE: take, Op.GIVE: give,
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
