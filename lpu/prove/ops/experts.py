"""Mixtures of experts: routers, slots, products with what a slot names, sums over all slots.

A slot stands for an expert that the rows chose; which one, data say. Slots 0 .. S-1 of a table are the
experts of weight other than 0, each once, and S is no fewer than the rows can choose: so a sum that takes
every slot once is the sum over all experts, whatever the table holds. Where S is the number of experts, slot
e is expert e.
"""

from typing import Any, NamedTuple

import numpy as np

from compiler.program.instructions.experts import strip
from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    GAIN,
    PAIRS,
    SCALE,
    STACK,
    TILE_ROWS,
    Holds,
    Op,
    ceil_div,
)
from lpu.prove.known import Known
from lpu.prove.lines import PRODUCT, ExpertSlot, HalfRun, Ranked, StackRun, TreeNode, Vector
from lpu.prove.models import experts as model
from lpu.prove.ops import matmul
from lpu.prove.ops.taken import of_kind, of_tensor, vectors
from lpu.prove.refused import RefusedError, need
from lpu.prove.rule import Proved, RowOperands

EXPERT_PRODUCT, EXPERT_GLU = "expert_product", "expert_glu"
NORMED = ("message", "input", "rms_norm", "round8")  # "input": of the template of a hop, its message
NOT_CHOSEN = -1  # route of a slot whose expert is fixed


class ExpertProduct(NamedTuple):
    """What one row adds to an accumulator: as `Product`, with the tiles of the expert of a slot.

    The slot is one of those of `some` experts from `first` on.
    """

    holds: int
    value: int
    tiles: tuple[tuple[int, int], ...]
    ks: int
    route: int
    slot: int
    slots: int
    first: int
    some: int


def _mm16(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane k of the input meets row k of the weights, each once."""
    value, lanes = vectors(known, row.src, Holds.F16, "its input")
    run = row.preloads
    need(isinstance(run, HalfRun), "reads no fp16 weights")
    assert isinstance(run, HalfRun)
    depth, width = known.terms.shape(run.tensor)[0], known.terms.width(value)
    need(depth == width, f"{known.show(run.tensor)} has {depth} rows, its input {width} lanes")
    need(len(run.rows) == ceil_div(len(lanes), 2), "reads other tiles than its input has")
    for i, rows in enumerate(run.rows):
        meets = known.lanes.joined(lanes[2 * i : 2 * i + 2], TILE_ROWS)
        need(known.lanes.within(rows, meets), f"rows of {known.show(run.tensor)} meet other lanes")
    need(known.lanes.cover_once(run.rows, depth), f"does not take each of {depth} rows once")
    return (Vector(Holds.F32, model.matmul16(known.terms, value, run.tensor), run.columns),)


def _in_order(known: Known, lanes: tuple[int, ...], width: int, what: str) -> None:
    wanted = tuple(known.lanes.line(i, width) for i in range(int(ceil_div(width, F32_LANES))))
    need(lanes == wanted, f"{what} does not hold {width} experts in order")


def _normed(known: Known, values: tuple[int, ...], statistic: int, what: str) -> None:
    """Products need the statistic of their norm but of what was normed before, or was sent so."""
    before = {known.terms.all[value].op for value in values}
    normed = bool(before) and before <= set(NORMED)
    need(statistic >= 0 or normed, f"{what} without the statistic of their norm")


def _rank(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """All sums of one vector, its own statistic, the scales of the same lanes."""
    sums, lanes = vectors(known, row.src, Holds.F32, "its operand")
    width, k = known.terms.width(sums), row.kernel
    need(k.experts == width, f"its kernel says {k.experts} experts, its operand has {width}")
    need(1 <= k.chosen <= width - k.gated, f"chooses {k.chosen} of {width - k.gated} experts")
    _in_order(known, lanes, width, "its operand")
    statistic = matmul.statistic(known, row, row.src2)
    _normed(known, known.terms.all[sums].operands[:1], statistic, "ranks")
    powers, columns = of_tensor(
        known, _part(row.preloads, 0, len(lanes) if k.has_bias else None), SCALE, len(lanes)
    )
    need(columns == lanes, f"{known.show(powers)} lies at other lanes than what it scales")
    have = known.terms.width(powers)
    need(have == width, f"{known.show(powers)} has {have} scales for {width} experts")
    need(k.first >= 0 and k.first + row.n <= len(lanes), f"ranks lines {k.first} .. of {len(lanes)}")
    z = model.logits(known.terms, sums, statistic, powers)
    bias = -1
    if k.has_bias:
        bias, columns = of_tensor(known, _part(row.preloads, len(lanes), None), SCALE, len(lanes))
        need(columns == lanes, f"{known.show(bias)} lies at other lanes than what it is added to")
        have = known.terms.width(bias)
        need(have == width, f"{known.show(bias)} has {have} numbers for {width} experts")
    if k.biased:
        need(not k.sigmoid, "has a bias of logits and of sigmoids")
        z, bias = known.terms.bias(z, bias), -1
    how = (bias, k.groups, k.keep, k.gated)
    return tuple(
        Ranked(Holds.RANKED, z, k.chosen, k.first + i, part, *how) for i in range(row.n) for part in range(2)
    )


def _part(preloads: Any, begin: int, end: int | None) -> Any:
    """Some of the words that a row reads; of tiles, which are no words, all."""
    return preloads[begin:end] if type(preloads) is tuple else preloads


def _share(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """All logits in order, each line with what is chosen of it."""
    of_kind(row.src, Holds.RANKED, "its operand")
    first = row.src[0]
    for i, line in enumerate(row.src):
        need(
            line == first._replace(line=i // 2, part=i % 2),
            "its operand is not all that was ranked, in order",
        )
    width = known.terms.width(first.value)
    need(row.kernel.experts == width, f"its kernel says {row.kernel.experts} experts, there are {width}")
    k, every = row.kernel, width + row.kernel.shared - row.kernel.gated
    need(k.shared >= 0, f"has {k.shared} shared experts")
    need(k.gated == first.gated, "takes the logit of a gate for an expert, or an expert's for a gate")
    need(not k.gated or (k.shared == 1 and not k.scores), f"has a gate, {k.shared} shared experts, or scores")
    need(row.n == ceil_div(every, F32_LANES), f"shares {row.n} lines of {every} experts")
    need(k.scores == (first.bias >= 0), "takes scores for logits of a softmax, or these for scores")
    scored = (first.groups, first.keep, k.scale) if k.scores else (model.GATED,) if k.gated else ()
    attributes = (first.chosen, k.renormalise, k.shared, *scored)
    made = model.route(known.terms, first.value, attributes, first.bias)
    return tuple(Vector(Holds.SHARE, made, known.lanes.line(i, every)) for i in range(row.n))


def _slots(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """All weights in order; as many slots as the rows of a step can choose experts, at least."""
    route, lanes = vectors(known, row.src, Holds.SHARE, "its operand")
    width, k = known.terms.width(route), row.kernel
    _in_order(known, lanes, width, "its operand")
    term = known.terms.all[route]
    need(term.op == model.ROUTE, "its operand is no choice of a router")
    need((k.experts, k.chosen) == (width, model.taken(term.attributes)), "its kernel is for another router")
    first, count = k.first, k.some or width
    need(0 <= first < first + count <= width, f"is for {count} experts from {first} on, of {width}")
    routed = width - model.shared(term.attributes)
    always = max(first + count - max(first, routed), 0) if k.shared else 0
    need(k.shared in (0, width - routed), f"has {k.shared} shared experts, its router {width - routed}")
    needed = min(count, known.manifest.rows * (k.chosen - k.shared) + always)
    needed = 1 if k.bounded else needed  # then the verdict is for inputs whose rows choose no more experts
    need(needed <= k.slots <= count, f"has {k.slots} slots, the rows can choose {needed} of {count} experts")
    need(row.src3 >= 0 and row.src3 + row.n <= k.slots, f"makes slots {row.src3} .. of {k.slots}")
    return tuple(ExpertSlot(Holds.SLOT, route, row.src3 + i, k.slots, first, count) for i in range(row.n))


def _xmm(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """As MM, with the tiles of one expert: that of a slot, or a fixed one."""
    run, k = stack_of(row), row.kernel
    need(run.kind == (PAIRS if k.paired else STACK), "takes halves of tiles for tiles, or these for halves")
    if k.expert < 0:
        of_kind(row.src2, Holds.SLOT, "its slot")
    return product(known, row, run, row.src2[0] if k.expert < 0 else None)


def stack_of(row: RowOperands) -> StackRun:
    """The tiles of several experts that a row names."""
    run = row.preloads
    if not isinstance(run, StackRun) or len(run.tiles) != row.n:
        raise RefusedError(f"reads no {row.n} tiles of a stack")
    return run


def product(known: Known, row: RowOperands, run: StackRun, slot: Any) -> tuple[Any, ...]:
    """What a row adds to an accumulator with the tile of a slot's expert, or of the one of its kernel."""
    value, lanes = vectors(known, row.src, Holds.F16, "its input")
    k = row.kernel
    need(not k.paired or len(lanes) == 1, f"two experts share a tile of {len(lanes)} lines each")
    codes = run.tiles[0][0]
    experts, depth, _ = known.terms.shape(codes)
    width, first, count = known.terms.width(value), run.first, run.some
    of = f"its kernel says {k.experts} experts, its stack of {known.show(codes)} has {count}"
    need(k.experts == count, of)
    need(depth == width, f"{known.show(codes)} has {depth} rows, its input {width} lanes")
    ks = known.lanes.joined(lanes, TILE_ROWS)
    need(known.lanes.within(run.rows, ks), f"rows of {known.show(codes)} meet other lanes")
    if k.expert >= 0:
        need(k.expert < count, f"takes expert {k.expert} of {count}")
        table = (count, first, count)
        return (ExpertProduct(PRODUCT, value, run.tiles, run.rows, NOT_CHOSEN, k.expert, *table),)
    have = known.terms.width(slot.value)
    need(have == experts, f"its slot is one of {have} experts, {known.show(codes)} has {experts}")
    here = f"its slot is of {slot.some} experts from {slot.first} on, its stack of {count} from {first} on"
    need((slot.first, slot.some) == (first, count), here)
    chosen = (slot.value, slot.slot, slot.slots, first, count)
    return (ExpertProduct(PRODUCT, value, run.tiles, run.rows, *chosen),)


def _wb(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Products of one slot are a product; those of all slots with their own activations a part of the sum."""
    if not row.products or not isinstance(row.products[0], ExpertProduct):
        need(
            not any(isinstance(one, ExpertProduct) for one in row.products), "adds experts to another product"
        )
        return matmul.write_back(known, row)
    count, says = len(row.products), row.kernel.products
    need(count == says, f"finds {count} products in its accumulator, says {says}")
    first: Any = row.products[0]
    need(len(first.tiles) == row.n, f"reads {row.n} lines where a product has {len(first.tiles)}")
    for one in row.products:
        alike = isinstance(one, ExpertProduct) and one.tiles == first.tiles
        need(alike, "its accumulator holds products of several matrices or columns")
    need(not row.kernel.wide, "leaves a sum over experts wide")
    made = _over_slots if known.terms.all[first.value].op == EXPERT_GLU else _of_slot
    return made(known, row, list(row.products))


def _of_slot(known: Known, row: RowOperands, products: list[Any]) -> tuple[Any, ...]:
    """Gate and up of one slot: every row of its matrix once, times the statistic."""
    first = products[0]
    for one in products:
        need(one._replace(ks=first.ks) == first, "its accumulator holds products of several slots or inputs")
    need(not row.kernel.part, "writes gate and up as a part of a sum")
    statistic = matmul.statistic(known, row, row.src)
    _normed(known, (first.value,), statistic, "writes gate and up")
    ks = tuple(sorted(one.ks for one in products))
    out: list[Vector] = []
    for (codes, columns), scale in zip(first.tiles, matmul.scales_read(row), strict=True):
        depth = known.terms.shape(codes)[1]
        whole = known.lanes.cover_once(ks, depth)
        need(whole, f"the sum does not take each of the {depth} rows of {known.show(codes)} once")
        tensor = matmul.scale_of(known, codes, columns, scale)
        routed = () if first.route == NOT_CHOSEN else (first.route,)
        operands = (first.value, codes, tensor, model.statistic_of(known.terms, statistic), *routed)
        shape = known.terms.shape(codes)[2:]
        attributes = (first.slot, first.slots, first.first, first.some)
        term = known.terms.make(EXPERT_PRODUCT, operands, attributes, shape)
        out.append(Vector(Holds.F32, term, columns))
    return tuple(out)


def _wglu(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Gate lanes beside the same lanes of up, or those alone, of the slot that weighs them; 0 stays 0."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    of_kind(row.src2, Holds.SLOT, "its slot")
    (slot,) = row.src2
    made: Any = known.terms.all[value]
    op, operands, attributes, shape, _ = made
    need(op == EXPERT_PRODUCT, "its operand is no product with an expert")
    table = (slot.slots, slot.first, slot.some)
    need(attributes[0] == slot.slot, f"weighs by slot {slot.slot} what is of slot {attributes[0]}")
    need(attributes[1:] == table, f"weighs by a slot of {slot.some} experts from {slot.first} on another's")
    if len(operands) > 4:
        need(operands[4] == slot.value, "its slot is of another router's choice")
    else:
        need(slot.slots == slot.some, "a fixed expert is weighted by a chosen one")
    wide = strip(row.kernel.activation)
    ways = F32_LANES // wide  # the gate and up, or up alone
    width = shape[0] // ways
    biases = _biases(known, row, lanes, shape[0])
    gates: list[int] = []
    for one in lanes:
        columns = known.lanes.all[one]
        gate, up = columns[:wide], columns[-wide:]
        beside = bool((up == (gate + (ways - 1) * width) * (gate >= 0) - (gate < 0)).all())
        beside &= bool((gate < width).all())
        need(beside, "lanes of the gate lie beside other lanes of up")
        gates.append(known.lanes.number(gate))
    how = (row.kernel.activation, slot.slot, *table)
    term = known.terms.make(EXPERT_GLU, (*operands[:4], slot.value, *biases), how, (width,))
    return tuple(Vector(Holds.F16, term, one) for one in known.lanes.pieces(tuple(gates), F16_LANES))


def _biases(known: Known, row: RowOperands, lanes: tuple[int, ...], width: int) -> tuple[int, ...]:
    """The biases of all experts, where words of those of the slot's table lie beside every line; or none."""
    count, slot = row.kernel.biases, row.src2[0]
    if not count:
        return ()
    vector, words = of_tensor(known, row.preloads, GAIN, len(lanes) * count)
    have, experts = known.terms.width(vector), known.terms.width(slot.value)
    need(have == experts * width, f"{known.show(vector)} has {have} biases for {experts} experts of {width}")
    need(count == slot.some, f"has biases of {count} experts, its slot is one of {slot.some}")
    found = np.array([known.lanes.all[one] for one in words]).reshape(len(lanes), count, -1)
    own = np.array([known.lanes.all[one] for one in lanes])[:, None]
    wanted = np.where(own < 0, -1, own + width * (slot.first + np.arange(count))[:, None])
    need(bool((found == wanted).all()), f"{known.show(vector)} lies at other lanes than what it is added to")
    return (vector,)


def _over_slots(known: Known, row: RowOperands, products: list[Any]) -> tuple[Any, ...]:
    """A contract part of the sum: the same consecutive rows of every slot, each with its own activation.

    Tables of slots follow one another from the first expert to the last; of each, every slot is there.
    """
    terms = known.terms
    need(row.kernel.part, "a sum over experts is of a contract part")
    by_slot: dict[tuple[int, ...], list[int]] = {}
    base: Any = terms.all[products[0].value]
    for one in products:
        made: Any = terms.all[one.value]
        op, operands, attributes, _, _ = made
        need(op == EXPERT_GLU, "adds what is no activation of an expert")
        same = operands == base.operands and attributes[0] == base.attributes[0]
        need(same, "adds activations of several vectors, matrices or routers")
        slot, *table = attributes[1:]
        need(
            (one.slot, one.slots, one.first, one.some) == (slot, *table),
            "multiplies a slot's activation by another expert",
        )
        need(one.route in (NOT_CHOSEN, operands[4]), "its expert is another router's choice")
        by_slot.setdefault((one.first, one.some, one.slots, slot), []).append(one.ks)
    tables = sorted({table[:3] for table in by_slot})
    end = 0
    for first, count, slots in tables:
        need(first == end, f"takes experts from {first} on after those below {end}")
        taken = sum(table[:3] == (first, count, slots) for table in by_slot)
        need(taken == slots, f"takes {taken} of {slots} slots")
        end = first + count
    every = terms.shape(base.operands[1])[0]
    need(end == every, f"takes experts below {end}, there are {every}")
    rows = {tuple(sorted(ks)) for ks in by_slot.values()}
    need(len(rows) == 1, "takes other rows of one slot than of another")
    span = known.lanes.span(rows.pop())
    hidden = model.glus(terms, base.operands, base.attributes[0])
    return tuple(
        TreeNode(Holds.NODE, hidden, codes, matmul.scale_of(known, codes, columns, scale), columns, span)
        for (codes, columns), scale in zip(products[0].tiles, matmul.scales_read(row), strict=True)
    )


PROOF = (
    Proved(op=Op.MM16, rule=_mm16),
    Proved(op=Op.RANK, rule=_rank),
    Proved(op=Op.SHARE, rule=_share),
    Proved(op=Op.SLOTS, rule=_slots),
    Proved(op=Op.XMM, rule=_xmm),
    Proved(op=Op.WB, rule=_wb),
    Proved(op=Op.WGLU, rule=_wglu),
)
