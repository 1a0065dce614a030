"""Rows that each rule of the proof accepts, and changes of them that one condition refuses: experts."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from proof_rows import Changes, Setting, row

from compiler.program.instructions.experts import (
    ExpertTileKernel,
    HalfKernel,
    RankKernel,
    ShareKernel,
    SlotsKernel,
    WeightedGluKernel,
)
from compiler.program.instructions.matmul import WriteBackKernel
from compiler.program.isa import GAIN, PAIRS, SCALE, STACK, TILE16, Holds, Op
from lpu.prove.lines import PRODUCT, ExpertSlot, HalfRun, Preload, Ranked, StackRun, Statistic, Vector
from lpu.prove.models import experts as model
from lpu.prove.ops.experts import NOT_CHOSEN, ExpertProduct
from lpu.prove.ops.registry import PROVED
from lpu.prove.rule import RowOperands

MANY = 100  # experts: two lines


def _router(s: Setting) -> tuple[int, int, int]:
    """(sums, powers, logits) of a router of many experts."""
    terms = s.known.terms
    sums = model.matmul16(terms, s.x, terms.tensor("halves", (160, MANY)))
    powers = terms.tensor("powers", (MANY,))
    statistic = terms.rms_stat(s.x, s.gain, 1e-5)
    return sums, powers, model.logits(terms, sums, statistic, powers)


def _in_order(s: Setting, holds: int, value: int) -> tuple[Vector, ...]:
    return Vector(holds, value, s.lanes(0)), Vector(holds, value, s.lanes(80, 20))


def _powers(s: Setting, powers: int, kind: int = SCALE) -> Any:
    return (*s.words(kind, powers, 0), s.words(kind, powers, 0)[0]._replace(columns=s.lanes(80, 20)))


def mm16(s: Setting) -> tuple[RowOperands, Changes]:
    halves, short = (s.known.terms.tensor(name, (k, MANY)) for name, k in (("halves", 160), ("short16", 80)))
    rows = s.lanes(0, 160, 320)
    turned = s.known.lanes.number(np.concatenate([np.arange(160)[::-1], np.full(160, -1)]))
    run = HalfRun(TILE16, halves, s.lanes(0), (rows,))
    return row(HalfKernel(k_lines=1), src=s.f16(s.x), preloads=run), {
        "reads no fp16 weights": {"preloads": s.words(SCALE, s.scale, 0)},
        "has 80 rows, its input 160": {"preloads": run._replace(tensor=short, rows=(s.lanes(0, 80, 320),))},
        "reads other tiles": {"preloads": run._replace(rows=(rows, s.lanes(0, 0, 320)))},
        "meet other lanes": {"preloads": run._replace(rows=(turned,))},
        "each of 160 rows once": {"preloads": run._replace(rows=(s.lanes(0, 80, 320),))},
        "its input holds f32": {"src": s.f32(s.x, 0)},
    }


def rank(s: Setting) -> tuple[RowOperands, Changes]:
    sums, powers, _ = _router(s)
    kernel = RankKernel(experts=MANY, chosen=3, first=1)
    statistic = Statistic(Holds.STAT, s.x, 1e-5, s.gain)
    lines = _in_order(s, Holds.F32, sums)
    fewer = s.known.terms.tensor("fewer", (80,))
    good = row(kernel, src=lines, src2=(statistic,), preloads=_powers(s, powers))

    def biased(*words: Preload) -> dict[str, Any]:
        return {"kernel": replace(kernel, sigmoid=True), "preloads": (*good.preloads, *words)}

    added = _powers(s, s.known.terms.tensor("bias", (MANY,)))
    assert PROVED[Op.RANK].rule(s.known, replace(good, **biased(*added)))
    return good, {
        "its kernel says 99 experts": {"kernel": replace(kernel, experts=99)},
        "chooses 101 of 100": {"kernel": replace(kernel, chosen=101)},
        "chooses 100 of 99": {"kernel": replace(kernel, chosen=100, gated=True)},
        "100 experts in order": {"src": lines[::-1]},
        "without the statistic of their norm": {"kernel": replace(kernel, normed=False)},
        "not for products of a shifted gain": {"src2": (statistic._replace(gain=-1),)},
        "its statistic holds f32": {"src2": lines[:1]},
        "lies at other lanes": {"preloads": _powers(s, powers)[::-1]},
        "has 80 scales for 100": {"preloads": _powers(s, fewer)},
        "ranks lines 2 ..": {"kernel": replace(kernel, first=2)},
        "reads GAIN where SCALE": {"preloads": _powers(s, powers, GAIN)},
        "lies at other lanes than what it is added to": biased(*added[::-1]),
        "has 80 numbers for 100": biased(*_powers(s, fewer)),
        "reads 1 preloaded values": biased(added[0]),
        "a bias of logits and of sigmoids": biased(*added)
        | {"kernel": replace(kernel, sigmoid=True, biased=True)},
    }


def share(s: Setting) -> tuple[RowOperands, Changes]:
    _, _, z = _router(s)
    kernel = ShareKernel(experts=MANY, renormalise=True)
    lines = tuple(Ranked(Holds.RANKED, z, 3, i // 2, i % 2) for i in range(4))
    of_gate = tuple(one._replace(gated=True) for one in lines)
    gated = row(replace(kernel, shared=1, gated=True), n=2, src=of_gate)
    assert PROVED[Op.SHARE].rule(s.known, gated) != PROVED[Op.SHARE].rule(
        s.known, row(kernel, n=2, src=lines)
    )
    return row(kernel, n=2, src=lines), {
        "all that was ranked, in order": {"src": (lines[0], lines[1], lines[3], lines[2])},
        "its kernel says 99 experts": {"kernel": replace(kernel, experts=99)},
        "shares 1 lines of 100": {"n": 1, "src": lines[:2]},
        "has -1 shared experts": {"kernel": replace(kernel, shared=-1)},
        "shares 2 lines of 161": {"kernel": replace(kernel, shared=61)},
        "takes scores for logits": {"kernel": replace(kernel, scores=True)},
        "takes the logit of a gate for an expert": {"src": of_gate},
        "or an expert's for a gate": {"kernel": gated.kernel},
        "has a gate, 0 shared experts": {"kernel": replace(kernel, gated=True), "src": of_gate},
        "or these for scores": {"src": tuple(one._replace(bias=s.gain) for one in lines)},
        "holds f32": {"src": s.f32(s.x, 0)},
    }


def slots(s: Setting) -> tuple[RowOperands, Changes]:
    route = model.route(s.known.terms, _router(s)[2], (3, True, 0))
    other = s.known.terms.make("choice", (s.x,), (3, True, 0), (MANY,))
    kernel = SlotsKernel(experts=MANY, chosen=3, slots=3)
    return row(kernel, n=2, src3=1, src=_in_order(s, Holds.SHARE, route)), {
        "100 experts in order": {"src": _in_order(s, Holds.SHARE, route)[:1]},
        "no choice of a router": {"src": _in_order(s, Holds.SHARE, other)},
        "for another router": {"kernel": replace(kernel, chosen=2)},
        "the rows can choose 3 of 100": {"kernel": replace(kernel, slots=2), "n": 1},
        "the rows can choose 3 of 40": {"kernel": replace(kernel, slots=2, first=60, some=40), "n": 1},
        "is for 41 experts from 60 on": {"kernel": replace(kernel, first=60, some=41)},
        "has 1 shared experts, its router 0": {"kernel": replace(kernel, shared=1)},
        "makes slots 2 ..": {"src3": 2},
        "holds f32": {"src": s.f32(s.x, 0)},
    }


def stack_and_route(s: Setting) -> tuple[int, int]:
    """A stack of many experts [160, 160], and the term of a choice among them."""
    stack = s.known.terms.tensor("stack", (MANY, 160, 160))
    return stack, model.route(s.known.terms, _router(s)[2], (3, True, 0))


def tiles_of(s: Setting, stack: int, rows: int, *columns: int) -> StackRun:
    experts = s.known.terms.shape(stack)[0]
    return StackRun(STACK, rows, tuple((stack, s.lanes(one)) for one in columns), 0, experts)


def xmm(s: Setting) -> tuple[RowOperands, Changes]:
    stack, route = stack_and_route(s)
    rows = s.lanes(0, 160, 320)
    kernel = ExpertTileKernel(k_lines=1, experts=MANY, expert=-1)
    deep = s.known.terms.tensor("deep stack", (MANY, 320, 160))
    few = s.known.terms.tensor("few", (7, 160, 160))
    slot = ExpertSlot(Holds.SLOT, route, 1, 3, 0, MANY)
    good = row(kernel, n=2, src=s.f16(s.x), src2=(slot,), preloads=tiles_of(s, stack, rows, 0, 80))
    pairs = tiles_of(s, stack, rows, 0, 80)._replace(kind=PAIRS)
    paired = replace(good, kernel=replace(kernel, paired=True), preloads=pairs)
    assert PROVED[Op.XMM].rule(s.known, paired)
    wide = s.known.terms.make("a wide vector", (), (), (320,))
    return good, {
        "takes halves of tiles for tiles": {"kernel": paired.kernel},
        "or these for halves": {"preloads": pairs},
        "two experts share a tile of 2 lines each": {
            "kernel": paired.kernel,
            "src": tuple(Vector(Holds.F16, wide, s.lanes(one, 160, 160)) for one in (0, 160)),
            "preloads": tiles_of(s, deep, s.lanes(0, 320, 320), 0, 80)._replace(kind=PAIRS),
        },
        "reads no 2 tiles of a stack": {"preloads": tiles_of(s, stack, rows, 0)},
        "no 2 tiles": {"preloads": s.run(s.codes, rows, 0, 80)},
        "its kernel says 99 experts": {"kernel": replace(kernel, experts=99)},
        "has 320 rows, its input 160": {"preloads": tiles_of(s, deep, rows, 0, 80)},
        "meet other lanes": {"preloads": tiles_of(s, stack, s.lanes(1, 159, 320), 0, 80)},
        "takes expert 100 of": {"kernel": replace(kernel, expert=100)},
        "experts from 0 on, its stack of 40 from 60 on": {
            "kernel": replace(kernel, experts=40),
            "preloads": tiles_of(s, stack, rows, 0, 80)._replace(first=60, some=40),
        },
        "its slot is one of 100 experts": {
            "kernel": replace(kernel, experts=7),
            "preloads": tiles_of(s, few, rows, 0, 80),
            "src2": (slot._replace(some=7),),
        },
        "its slot holds f32": {"src2": s.f32(s.x, 0)},
    }


def wglu(s: Setting) -> tuple[RowOperands, Changes]:
    stack, route = stack_and_route(s)
    terms = s.known.terms
    statistic, powers = terms.rms_stat(s.x, s.gain, 1e-5), terms.tensor("scales", (160,))
    table = (1, 3, 0, MANY)
    product = terms.make("expert_product", (s.x, stack, powers, statistic, route), table, (160,))
    fixed = terms.make("expert_product", (s.x, stack, powers, statistic), table, (160,))
    other = model.route(terms, _router(s)[2], (3, False, 0))
    unlike = terms.make("another product", (s.x, stack, powers, statistic, route), table, (160,))
    both = s.known.lanes.number(np.concatenate([np.arange(40), 80 + np.arange(40)]))
    crossed = s.known.lanes.number(np.concatenate([np.arange(40), 90 + np.arange(40)]))
    line, slot = Vector(Holds.F32, product, both), ExpertSlot(Holds.SLOT, route, 1, 3, 0, MANY)
    good = row(WeightedGluKernel(activation="silu"), src=(line,), src2=(slot,))

    def biased(experts: int, width: int = 160) -> dict[str, Any]:
        vector = terms.tensor(f"biases of {width}", (MANY * width,))
        columns = [s.known.lanes.all[both] + 160 * one for one in range(experts)]
        words = tuple(Preload(GAIN, vector, s.known.lanes.number(one), 0) for one in columns)
        return {"kernel": replace(good.kernel, biases=experts), "preloads": words}

    fine = biased(MANY)
    assert PROVED[Op.WGLU].rule(s.known, replace(good, **fine))
    return good, {
        "has 24000 biases for 100 experts of 160": biased(MANY, 240),
        "has biases of 7 experts, its slot is one of 100": biased(7),
        "lies at other lanes than what it is added to": fine | {"preloads": fine["preloads"][::-1]},
        "no product with an expert": {"src": (line._replace(value=unlike),)},
        "weighs by slot 2 what is of slot 1": {"src2": (slot._replace(slot=2),)},
        "by a slot of 40 experts from 60 on": {"src2": (slot._replace(first=60, some=40),)},
        "another router's choice": {"src2": (slot._replace(value=other),)},
        "a fixed expert is weighted by a chosen one": {"src": (line._replace(value=fixed),)},
        "beside other lanes of up": {"src": (line._replace(lanes=crossed),)},
        "its slot holds f32": {"src2": (line,)},
    }


def sum_of_slots(s: Setting) -> tuple[RowOperands, Changes]:
    """A write-back over two slots of a fixed and a chosen kind: a part of the down projections' sum."""
    terms = s.known.terms
    stack, route = stack_and_route(s)
    statistic, powers = terms.rms_stat(s.x, s.gain, 1e-5), terms.tensor("scales", (160,))
    operands = (s.x, stack, powers, statistic, route)

    def product(slot: int, rows: int, table: tuple[int, ...] = (2, 0, MANY)) -> ExpertProduct:
        value = terms.make("expert_glu", operands, ("silu", slot, *table), (160,))
        return ExpertProduct(PRODUCT, value, ((stack, s.lanes(0)),), rows, route, slot, *table)

    rows, tail = s.lanes(0, 80, 320), s.lanes(80, 80, 320)
    kernel = WriteBackKernel(wide=False, products=2, part=True)
    every = (product(0, rows), product(1, rows))
    unlike = terms.make("another activation", operands, ("silu", 1, 2, 0, MANY), (160,))
    fixed = ExpertProduct(PRODUCT, s.x, ((s.codes, s.lanes(0)),), tail, NOT_CHOSEN, 0, 2, 0, 2)
    gelu = terms.make("expert_glu", operands, ("gelu", 1, 2, 0, MANY), (160,))
    shares = tuple(
        product(slot, rows, table) for table in ((2, 0, 60), (1, 60, 40)) for slot in range(table[0])
    )
    in_shares = row(replace(kernel, products=3), products=shares, preloads=s.words(SCALE, s.scale, 0))
    assert PROVED[Op.WB].rule(s.known, in_shares)
    good = row(kernel, products=every, preloads=s.words(SCALE, s.scale, 0))
    return good, {
        "finds 2 products": {"kernel": replace(kernel, products=3)},
        "reads 2 lines where": {"n": 2},
        "several matrices or columns": {
            "products": (every[0], product(1, rows)._replace(tiles=((stack, s.lanes(80)),)))
        },
        "leaves a sum over experts wide": {"kernel": replace(kernel, wide=True)},
        "is of a contract part": {"kernel": replace(kernel, part=False)},
        "adds what is no activation": {"products": (every[0], product(1, rows)._replace(value=unlike))},
        "of several vectors, matrices or routers": {
            "products": (every[0], product(1, rows)._replace(value=gelu))
        },
        "by another expert": {"products": (every[0]._replace(slot=1), every[1]._replace(slot=0))},
        "is another router's choice": {"products": (every[0], product(1, rows)._replace(route=s.x))},
        "takes 1 of 2 slots": {"products": every[:1], "kernel": replace(kernel, products=1)},
        "takes experts from 50 on after those below 60": {
            "products": (*shares[:2], product(0, rows, (1, 50, 50))),
            "kernel": replace(kernel, products=3),
        },
        "takes experts below 60, there are 100": {"products": shares[:2]},
        "other rows of one slot": {"products": (every[0], product(1, tail))},
        "consecutive rows": {
            "products": (*every, *every),
            "kernel": replace(kernel, products=4),
        },
        "adds experts to another product": {
            "products": (s.product(rows, 0), fixed),
            "kernel": replace(kernel, part=False),
        },
        "reads no 1 scales": {"preloads": ()},
    }


def one_slot(s: Setting) -> tuple[RowOperands, Changes]:
    """A write-back of gate and up of one slot."""
    stack, _ = stack_and_route(s)
    rows = s.lanes(0, 160, 320)
    made = ExpertProduct(PRODUCT, s.x, ((stack, s.lanes(0)),), rows, NOT_CHOSEN, 3, MANY, 0, MANY)
    kernel = WriteBackKernel(wide=False, products=1, normed=True)
    halves = made._replace(ks=s.lanes(0, 80, 320)), made._replace(slot=4, ks=s.lanes(80, 80, 320))
    statistic = Statistic(Holds.STAT, s.x, 1e-5, s.gain)
    good = row(kernel, products=(made,), src=(statistic,), preloads=s.words(SCALE, s.scale, 0))
    return good, {
        "several slots or inputs": {
            "products": halves,
            "kernel": replace(kernel, products=2),
        },
        "lies at other columns": {"preloads": s.words(SCALE, s.scale, 80)},
        "has 80 scales for 160": {"preloads": s.words(SCALE, s.short, 0)},
        "as a part of a sum": {"kernel": replace(kernel, part=True)},
        "without the statistic": {"kernel": replace(kernel, normed=False)},
        "each of the 160 rows": {"products": halves[:1]},
    }


EXPERTS: dict[Op, Callable[[Setting], tuple[RowOperands, Changes]]] = {
    Op.MM16: mm16, Op.RANK: rank, Op.SHARE: share, Op.SLOTS: slots, Op.XMM: xmm, Op.WGLU: wglu,
}  # fmt: skip
SUMS = {"over slots": sum_of_slots, "of one slot": one_slot}
