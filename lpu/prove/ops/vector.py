"""Vector instructions: embedding, norms, RoPE, rounding, sums, gated activation, argmax."""

from typing import Any

from compiler.program.isa import ANGLES, F16_LANES, F32_LANES, FACTOR, SHIFTED, TABLE, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import Chosen, HalfRun, LayerMoments, StackRun, Statistic, TileRun, Vector
from lpu.prove.ops.taken import gains, of_kind, of_tensor, vectors
from lpu.prove.refused import RefusedError, need
from lpu.prove.rule import Proved, RowOperands

WIDEST = 32_768  # of an exact sum of squares in f64
WIDEST_LAYER = 1 << 20  # of those of a layer norm, whose integers are narrower
EXACT_COLUMNS = 1 << 24  # columns that f32 counts


def _f16(known: Known, value: int, lanes: tuple[int, ...]) -> tuple[Vector, ...]:
    """Fp16 lines of the lanes of f32 lines, two and two."""
    return tuple(Vector(Holds.F16, value, one) for one in known.lanes.pieces(lanes, F16_LANES))


def _embed(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """A token's row of the whole table, or a position's, at the columns that the rank holds."""
    table, (columns,) = of_tensor(known, row.preloads, TABLE, 1)
    lines = 0 if isinstance(row.preloads, TileRun | StackRun | HalfRun) else row.preloads[0].lines
    need(lines == row.n, f"takes {row.n} lines of a table of {lines}")
    rows = known.terms.shape(table)[0]
    need(row.kernel.vocab == rows, f"its kernel says {row.kernel.vocab} rows, {known.show(table)} has {rows}")
    if row.kernel.positions:
        need(known.context <= rows, f"positions up to {known.context - 1}, the table has {rows} rows")
    value = known.terms.embed(table, positions=row.kernel.positions)
    return tuple(Vector(Holds.F32, value, one) for one in known.lanes.pieces((columns,), F32_LANES))


def _rstat(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Over every feature once; padding is zero and adds nothing."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    width = known.terms.width(value)
    need(known.lanes.cover_once(lanes, width), f"its lines do not hold each of {width} features once")
    need(row.kernel.width == width, f"its kernel says {row.kernel.width} features, its operand has {width}")
    need(width <= WIDEST, f"{width} squares have no exact sum, the most are {WIDEST}")
    gain = -1
    if row.kernel.shifted:
        gain, _ = of_tensor(known, row.preloads, FACTOR, 1)
    return (Statistic(Holds.STAT, value, row.kernel.eps, gain),)


def _norm(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """A vector times its own statistic and the gain of the same lanes."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    of_kind(row.src2, Holds.STAT, "its statistic")
    (statistic,) = row.src2
    need(statistic.value == value, f"its statistic is of {known.show(statistic.value)}")
    need(statistic.gain < 0, "its statistic is for products of a shifted gain")
    width = known.terms.width(value)
    gain = gains(known, row.preloads, lanes, width)
    if row.kernel.f32:
        made = known.terms.norm32(value, gain, statistic.eps)
        return tuple(Vector(Holds.F32, made, lane) for lane in lanes)
    return _f16(known, known.terms.norm(value, gain, statistic.eps, width), lanes)


def _moments(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Over every feature once; padding is zero and adds nothing."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    width = known.terms.width(value)
    need(known.lanes.cover_once(lanes, width), f"its lines do not hold each of {width} features once")
    need(row.kernel.width == width, f"its kernel says {row.kernel.width} features, its operand has {width}")
    need(width <= WIDEST_LAYER, f"{width} features have no exact sums, the most are {WIDEST_LAYER}")
    return (LayerMoments(Holds.MOMENTS, value, row.kernel.eps),)


def _lnorm(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """A vector by its own moments, then gain and bias of the same lanes, zero where they are padding."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    of_kind(row.src2, Holds.MOMENTS, "its moments")
    (found,) = row.src2
    need(found.value == value, f"its moments are of {known.show(found.value)}")
    if isinstance(row.preloads, TileRun | StackRun | HalfRun):
        raise RefusedError("reads tiles where gains must be")
    size, width = len(lanes), known.terms.width(value)
    need(len(row.preloads) == 2 * size, f"{len(row.preloads)} words beside {size} lines")
    gain, bias = (gains(known, row.preloads[at : at + size], lanes, width) for at in (0, size))
    made = known.terms.layer_norm32(value, gain, bias, found.eps)
    return tuple(Vector(Holds.F32, made, lane) for lane in lanes)


def _pre(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane, a vector times the shifted gain of the same lanes."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    gain = gains(known, row.preloads, lanes, known.terms.width(value), SHIFTED)
    return _f16(known, known.terms.prescale(value, gain), lanes)


def _whole_heads(known: Known, row: RowOperands, holds: int) -> tuple[int, int]:
    """(value, lanes of n whole heads, densely)."""
    value, lanes = vectors(known, row.src, holds, "its operand")
    head_dim, width = row.kernel.head_dim, known.terms.width(value)
    heads = known.lanes.heads(lanes, row.n, head_dim)
    need(width % head_dim == 0 and max(heads) < width // head_dim, f"{width} features are no such heads")
    return value, known.lanes.number(known.lanes.concatenated(lanes)[: row.n * head_dim])


def _hnorm(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Each head by itself, so only whole ones; one gain for all of them, or for each the lanes beside it."""
    value, dense = _whole_heads(known, row, Holds.F32)
    k, width = row.kernel, known.terms.width(value)
    if k.length:
        made = known.terms.l2_norm(value, k.eps, k.head_dim)
        return tuple(Vector(Holds.F32, made, one) for one in known.lanes.pieces((dense,), F32_LANES))
    beside = dense if k.own else known.lanes.count(k.head_dim)
    words = known.lanes.pieces((beside,), F32_LANES)
    gain = gains(known, row.preloads, words, width if k.own else k.head_dim)
    if k.f32:
        made = known.terms.norm32(value, gain, k.eps, k.head_dim)
        return tuple(Vector(Holds.F32, made, one) for one in known.lanes.pieces((dense,), F32_LANES))
    need(not k.own, "norms heads to fp16 by gains of each")
    made = known.terms.norm(value, gain, k.eps, k.head_dim)
    return tuple(Vector(Holds.F16, made, one) for one in known.lanes.pieces((dense,), F16_LANES))


def _rope(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Each head turned by the table's row of the position, which the instruction fixes."""
    value, dense = _whole_heads(known, row, Holds.F32 if row.kernel.input == "f32" else Holds.F16)
    lanes = known.lanes.pieces((dense,), F16_LANES)
    table, _ = of_tensor(known, row.preloads, ANGLES, 1)
    shape, wanted = known.terms.shape(table), (row.kernel.positions, 2, row.kernel.table_pairs)
    need(shape == wanted, f"{known.show(table)} is {shape}, its kernel says {wanted}")
    need(
        row.kernel.first + known.context <= row.kernel.positions,
        f"positions from row {row.kernel.first} on, the table has {row.kernel.positions} rows",
    )
    made = known.terms.rope(value, table, row.kernel.head_dim, row.kernel.first)
    return tuple(Vector(Holds.F16, made, one) for one in lanes)


def _cast(known: Known, row: RowOperands) -> tuple[Any, ...]:
    value, lanes = vectors(known, row.src, Holds.SHARE if row.kernel.shares else Holds.F32, "its operand")
    return _f16(known, known.terms.rounded(value, 16), lanes)


def _beside(known: Known, row: RowOperands) -> tuple[int, int, tuple[int, ...]]:
    """Two vectors of equal width, lane beside lane."""
    one, lanes = vectors(known, row.src, Holds.F32, "its first operand")
    other, others = vectors(known, row.src2, Holds.F32, "its second operand")
    wide, high = known.terms.width(one), known.terms.width(other)
    need(wide == high, f"its operands {known.show(one)} and {known.show(other)} have {wide} and {high} lanes")
    need(lanes == others, f"the lanes of {known.show(one)} lie beside other lanes of {known.show(other)}")
    return one, other, lanes


def _add(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane, 0 + 0 is 0; the order of the two does not matter."""
    one, other, lanes = _beside(known, row)
    value = known.terms.add(one, other)
    return tuple(Vector(Holds.F32, value, lane) for lane in lanes)


def _mul(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane; a constant times 0 is 0."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    made = known.terms.multiply(value, row.kernel.factor)
    return tuple(Vector(Holds.F32, made, lane) for lane in lanes)


def _mad(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane; the constant is of the second."""
    one, other, lanes = _beside(known, row)
    made = known.terms.multiply_add(one, other, row.kernel.factor)
    return tuple(Vector(Holds.F32, made, lane) for lane in lanes)


def _bias(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane; the bias is zero where its operand is padding."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    vector = gains(known, row.preloads, lanes, known.terms.width(value))
    made = known.terms.bias(value, vector)
    return tuple(Vector(Holds.F32, made, lane) for lane in lanes)


def _vmul(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane; a factor of padding is zero, as what it multiplies."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    factors = gains(known, row.preloads, lanes, known.terms.width(value))
    made = known.terms.multiply_lanes(value, factors)
    return tuple(Vector(Holds.F32, made, lane) for lane in lanes)


def _cap(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane; a soft cap of 0 is 0."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    made = known.terms.softcap(value, row.kernel.cap)
    return tuple(Vector(Holds.F32, made, lane) for lane in lanes)


def _glu(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane; every activation of 0 is 0."""
    gate, up, lanes = _beside(known, row)
    return _f16(known, known.terms.glu(gate, up, row.kernel.activation), lanes)


def _argmax(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lines of the vocabulary by their number, no lane beyond it."""
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    width = known.terms.width(value)
    need(row.kernel.vocab == width, f"its kernel says {row.kernel.vocab} columns, its operand has {width}")
    need(width <= EXACT_COLUMNS, f"f32 does not count {width} columns")
    numbers = range(row.src3, row.src3 + row.n)
    for number, lane in zip(numbers, lanes, strict=True):
        need(lane == known.lanes.line(number, width), f"its operand is not line {number} of the vocabulary")
    return (Chosen(Holds.PICK, value, frozenset(numbers)),)


def _argred(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """The largest of the largest; a line that is looked at twice changes nothing."""
    of_kind(row.src, Holds.PICK, "its operand")
    value = known.same([one.value for one in row.src], "its operand")
    return (Chosen(Holds.PICK, value, frozenset().union(*(one.lines for one in row.src))),)


PROOF = (
    Proved(op=Op.EMBED, rule=_embed),
    Proved(op=Op.RSTAT, rule=_rstat),
    Proved(op=Op.NORM, rule=_norm),
    Proved(op=Op.MOMENTS, rule=_moments),
    Proved(op=Op.LNORM, rule=_lnorm),
    Proved(op=Op.PRE, rule=_pre),
    Proved(op=Op.HNORM, rule=_hnorm),
    Proved(op=Op.ROPE, rule=_rope),
    Proved(op=Op.CAST, rule=_cast),
    Proved(op=Op.ADD, rule=_add),
    Proved(op=Op.BIAS, rule=_bias),
    Proved(op=Op.VMUL, rule=_vmul),
    Proved(op=Op.MUL, rule=_mul),
    Proved(op=Op.MAD, rule=_mad),
    Proved(op=Op.CAP, rule=_cap),
    Proved(op=Op.GLU, rule=_glu),
    Proved(op=Op.ARGMAX, rule=_argmax),
    Proved(op=Op.ARGRED, rule=_argred),
)
