"""Rows that each rule of the proof accepts, and changes of them that one condition refuses: all of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from proof_cold import COLD_ROWS
from proof_early import EARLY_ROWS
from proof_encoder import ENCODERS
from proof_experts import EXPERTS
from proof_latent import appended, closed, scored
from proof_rows import ATTENTION, VECTORS, Changes, Setting, row
from proof_states import STATES

from compiler.program.instructions.host import GiveKernel, TakeKernel
from compiler.program.instructions.matmul import (
    MatmulKernel,
    ReduceKernel,
    TreeKernel,
    WriteBackKernel,
    tree_kernel,
)
from compiler.program.isa import GAIN, SCALE, Holds, Op
from lpu.prove.lines import Peak, Preload, Statistic, TreeNode
from lpu.prove.ops.registry import PROVED
from lpu.prove.rule import RowOperands


def mm(s: Setting) -> tuple[RowOperands, Changes]:
    rows = s.lanes(0, 160, 320)
    good = row(MatmulKernel(k_lines=1), n=2, src=s.f16(s.x), preloads=s.run(s.codes, rows, 0, 80))
    return good, {
        "meet other lanes of x": {"preloads": s.run(s.codes, s.lanes(1, 159, 320), 0, 80)},
        "has 320 rows, its input 160": {"preloads": s.run(s.deep, rows, 0, 80)},
        "480 lanes in a line of 320": {"src": s.f16(s.x) * 3},
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
        "applies a statistic to a partial sum": {
            "kernel": WriteBackKernel(wide=True, products=2, normed=True),
            "src": (statistic,),
        },
        "leaves a contract part wide": {"kernel": WriteBackKernel(wide=True, products=2, part=True)},
        "applies a statistic to a part of": {
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
    } | closed(s)


def tree(s: Setting) -> tuple[RowOperands, Changes]:
    def node(*starts: int, **fields: int) -> TreeNode:
        made = TreeNode(Holds.NODE, s.x, s.codes, s.scale, s.lanes(0), starts)
        return made._replace(**fields)

    nodes = (node(0, 40, 80), node(80, 120, 160))
    good = row(tree_kernel((2, 2), whole=True), src=nodes)
    return good, {
        "parts 1 .. 2 are no node": {
            "kernel": tree_kernel((1, 2, 1), whole=True),
            "src": (node(0, 40), node(40, 80, 120), node(120, 160)),
        },
        "another number of lines": {"src": nodes[:1]},
        "several products or columns": {"src": (nodes[0], node(80, 120, 160, columns=s.lanes(80)))},
        "products or columns": {"src": (nodes[0], node(80, 120, 160, value=s.y))},
        "takes a node of 1 parts for one of 2": {"src": (nodes[0], node(80, 160))},
        "begins at row 40 follows": {"src": (nodes[0], node(40, 120, 160))},
        "rows 0 .. 120 of 160": {"src": (nodes[0], node(80, 100, 120))},
        "begin at no": {"kernel": TreeKernel(leaves=4, begins=0b100, whole=False), "src": nodes[1:]},
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
    ring = replace(ATTENTION, block=32, chunk=32, run=32, capacity=64, kv_stride=64, window=20)
    assert PROVED[Op.KVW].rule(s.known, replace(good, kernel=ring))
    return good, {
        "K of head 0 and V of head 1": {"src2": other},
        "K has 160 lanes, V 80": {"src2": s.f16(s.narrow, 0, 80)},
        "whole heads": {"src": s.f16(s.x, 40, 80)},
        "stripe 1 of 1": {"src3": 1},
        "stripe -1 of 2": {"kernel": striped, "src3": -1},
        "rows of the step": {"kernel": replace(ATTENTION, rows=2)},
        "sees whole sequences, and 20 tokens": {"kernel": replace(ATTENTION, whole=True, window=20)},
        "cached sequences": {"kernel": replace(ATTENTION, cached=2)},
        "the step (1, 1, 2)": {"kernel": replace(ATTENTION, sequences=2)},
        "2 words of a token": {"kernel": replace(ATTENTION, kv_words=2)},
        "has stride 80": {"kernel": replace(ATTENTION, kv_stride=80)},
        "KV in fp8": {"kernel": replace(ATTENTION, kv="fp8", kv_words=1)},
        "rows take 80 tokens of 2 blocks of 100": {"kernel": replace(ATTENTION, block=100)},
        "rows take 80 tokens of 2 blocks of 79": {"kernel": replace(ATTENTION, block=79)},
        "the most are 8192": {"kernel": replace(ATTENTION, block=8193, chunk=160, chunks=1)},
        "no whole blocks of 80": {
            "kernel": replace(striped, run=120, capacity=120, kv_stride=120),
            "src3": 0,
        },
        "do not hold 160": {"kernel": replace(ATTENTION, chunks=1, capacity=80, kv_stride=80)},
        "a ring of blocks of 64 tokens, rows take 32": {
            "kernel": replace(ring, block=64, chunks=1, window=1),
        },
        "a ring in 2 stripes": {"kernel": replace(ring, stripes=2), "src3": 0},
        "read 64 tokens of a ring of 96": {"kernel": replace(ring, capacity=96, kv_stride=96)},
        "to see 40 it takes 96": {"kernel": replace(ring, window=40)},
        "regions of 79 tokens do not hold 80": {"kernel": replace(striped, capacity=79, kv_stride=79)},
        "regions of 80 tokens": {"kernel": replace(ATTENTION, capacity=80, kv_stride=80)},
        "a group of 81": {"kernel": replace(ATTENTION, group=81)},
    } | appended(s)


def qk(s: Setting) -> tuple[RowOperands, Changes]:
    good = row(ATTENTION, n=1, src=s.f16(s.x), region=s.region())
    return good, {
        "attend to KV head 1": {"region": s.region(head=1)},
        "of another attention": {"region": s.region(kernel=1)},
        "no KV region": {"region": None},
        "block 2 of 2": {"n": 2},
        "whole heads": {"src": s.f16(s.x, 40, 120)},
        "no groups of": {
            "kernel": replace(ATTENTION, group=1),
            "src": s.f16(s.x, 0, 80),
            "region": s.region(keys=s.known.terms.tensor("odd", (96,))),
        },
    } | scored(s)


def smax(s: Setting) -> tuple[RowOperands, Changes]:
    score = s.chunk(Holds.SCORE, 0)
    return row(ATTENTION, src=score), {
        "2 blocks of scores, not 1": {"src": (*score, *s.chunk(Holds.SCORE, 1))},
        "no blocks of 2": {"src": score[:1]},
        "not one whole result": {"src": score[::-1]},
        "of another attention": {"index": 1},
        "holds weight": {"src": s.chunk(Holds.WEIGHT, 0)[:2]},
    }


def exp(s: Setting) -> tuple[RowOperands, Changes]:
    peak = Peak(Holds.PEAK, s.of, 1)
    good = row(ATTENTION, src=s.chunk(Holds.SCORE, 1), src2=(peak,))
    return good, {
        "maxima are of block 0, its scores of 1": {"src2": (peak._replace(block=0),)},
        "several attentions": {"src2": (peak._replace(of=s.of._replace(queries=s.y)),)},
        "maxima holds score": {"src2": s.chunk(Holds.SCORE, 0)},
        "2 lines, not 1": {"src2": (peak, peak)},
    }


def pv(s: Setting) -> tuple[RowOperands, Changes]:
    good = row(ATTENTION, n=1, src=s.chunk(Holds.WEIGHT, 1), region=s.region())
    return good, {
        "meet values of block 0": {"n": 0},
        "meet head 1": {"region": s.region(head=1)},
        "of y": {"region": s.region(keys=s.y)},
        "its operand is of another attention": {"index": 1, "region": s.region(kernel=1)},
        "2 blocks, not 1": {"src": s.chunk(Holds.WEIGHT, 1) * 2},
        "holds score": {"src": s.chunk(Holds.SCORE, 1)},
        "of another attention": {"region": s.region(kernel=1)},
        "block 2 of 2": {"n": 2},
    }


def node(s: Setting) -> tuple[RowOperands, Changes]:
    """The tree over seven blocks: ((0 1) (2 3)) ((4 5) 6)."""

    def nodes(*ranges: tuple[int, int]) -> dict[str, Any]:
        return {"src": tuple(line for one in ranges for line in s.node(*one))}

    kernel = replace(ATTENTION, chunks=7, kv_stride=560, capacity=560)
    for good in (((0, 2), (2, 4), (4, 6), (6, 7)), ((4, 5), (5, 6), (6, 7)), ((0, 4), (4, 7)), ((6, 7),)):
        assert PROVED[Op.NODE].rule(s.known, row(kernel, **nodes(*good)))
    other = s.node(3, 4)[0]._replace(of=s.of._replace(queries=s.y))
    return row(kernel, **nodes((2, 3), (3, 4))), {
        "no node of the tree": nodes((1, 2), (2, 3)),
        "3 nodes of 1 blocks from block 2 on": nodes((2, 3), (3, 4), (4, 5)),
        "3 nodes before the end": nodes((0, 1), (1, 2), (2, 3)),
        "nodes of 1 and 2 blocks": nodes((0, 1), (1, 3), (3, 4), (4, 5)),
        "nodes of 1 and 2": nodes((4, 5), (5, 7)),
        "nodes of 2 and 1": nodes((2, 4), (4, 5)),
        "2 nodes of 3 blocks": nodes((0, 3), (3, 6)),
        "from block 5 on beside one up to 3": nodes((2, 4), (5, 6)),
        "from block 2 on beside one up to 2": nodes((2, 3), (2, 3)),
        "several values": {"src": (*s.node(2, 3), *s.node(3, 4, values=s.y))},
        "several attentions": {"src": (*s.node(2, 3), *(other._replace(line=i) for i in range(3)))},
        "of another attention": {"index": 1},
        "no blocks of 3": {"src": s.node(2, 3)[:2]},
        "merges blocks of a ring": {"kernel": replace(ATTENTION, chunks=1), **nodes((0, 1))},
        "holds weight": {"src": s.chunk(Holds.WEIGHT, 0)},
    }


def aout(s: Setting) -> tuple[RowOperands, Changes]:
    one, other = s.node(0, 1), s.node(1, 2)
    return row(ATTENTION, n=2, src=(*one, *other)), {
        "divides blocks 0 .. 0 of 2": {"src": one},
        "from block 0 on beside one up to 0": {"src": (*one, *one)},
        "no node of the tree": {"src": (*other, *s.node(2, 3))},
        "its sinks are of heads [1, 2]": {
            "kernel": replace(ATTENTION, sinks=True),
            "preloads": (Preload(GAIN, s.known.terms.tensor("sinks", (3,)), s.lanes(1, 2), 0),),
        },
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
        "its wire is fp16": {"kernel": GiveKernel(wire="fp16", host_slot=1), "src": s.f16(s.x)},
    }


OTHERS = VECTORS | ENCODERS | STATES | EXPERTS | EARLY_ROWS | COLD_ROWS
RULES: dict[Op, Callable[[Setting], tuple[RowOperands, Changes]]] = OTHERS | {
    Op.MM: mm, Op.WB: wb, Op.RED: red, Op.TREE: tree, Op.KVW: kvw, Op.QK: qk, Op.SMAX: smax,
    Op.EXP: exp, Op.PV: pv, Op.NODE: node, Op.AOUT: aout, Op.TAKE: take, Op.GIVE: give,
}  # fmt: skip
