"""Layers with a state: lane by lane, over this step's values and all before it.

What a row reads of its state is what the same row of the step before left: a region holds one state of the
model and the same channels of it in every bucket and program (`lpu.prove.prove`), so step by step it is that
state.
"""

from typing import Any, TypeVar

from compiler.program.instructions.recurrent import (
    ConvKernel,
    DeltaKernel,
    SsmKernel,
    StateKernel,
    both_lines,
    decayed_lines,
    number_lines,
    raw_lines,
    stepped_lines,
    tap_words,
)
from compiler.program.isa import F16_LANES, GAIN, Holds, Op
from lpu.prove.known import Known
from lpu.prove.lines import STATE, Decayed, HalfRun, StackRun, StateLines, Stepped, TileRun, Vector
from lpu.prove.ops.taken import blocks, gains, of_tensor, vectors
from lpu.prove.refused import RefusedError, need
from lpu.prove.rule import Proved, RowOperands

_Line = TypeVar("_Line", Stepped, Decayed)


def _fits(known: Known, k: StateKernel) -> None:
    """The numbers of a kernel: of the program's rows and of its cache."""
    manifest = known.manifest
    rows = (k.rows, k.cached, k.sequences * manifest.chunk)
    wanted = (manifest.rows, manifest.sequences, manifest.rows)
    need(rows == wanted, f"its kernel has rows, cached sequences and rows of the step {rows}, not {wanted}")


def _conv(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Taps and bias lie vector by vector beside the lanes; of zeros the result is zero."""
    k: ConvKernel = row.kernel
    _fits(known, k)
    value, lanes = vectors(known, row.src, Holds.F32, "its operand")
    if isinstance(row.preloads, TileRun | StackRun | HalfRun):
        raise RefusedError("reads tiles where taps must be")
    size, width = len(lanes), known.terms.width(value)
    need(len(row.preloads) == size * tap_words(k), f"{len(row.preloads)} words beside {size} lines")
    taps = tuple(
        gains(known, row.preloads[at : at + size], lanes, width) for at in range(0, size * tap_words(k), size)
    )
    made = known.terms.conv(value, taps, k.biased)
    lines = tuple(Vector(Holds.F32, made, one) for one in lanes)
    return (*lines, StateLines(STATE, made, lanes, row.index))


def _in_order(known: Known, lines: tuple[Any, ...], count: int, what: str) -> int:
    """The value that lies whole and in order in these lines."""
    value, lanes = vectors(known, lines, Holds.F32, what)
    width = known.terms.width(value)
    wanted = tuple(known.lanes.line(i, width) for i in range(count))
    need(lanes == wanted, f"{what} does not lie whole and in order")
    return value


def _step(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Each lane of a line of channels with the time step, D and decays that are its own."""
    k: SsmKernel = row.kernel
    _fits(known, k)
    value, lane = _line_of(known, row)
    if k.apart:
        need(k.steps == k.channels, f"{k.channels} channels with {k.steps} time steps, line by line")
        raw, (other,) = vectors(known, row.src2, Holds.F32, "its time steps")
        need(other == lane, "its time steps are of other channels")
    else:
        raw = _in_order(known, row.src2, raw_lines(k), "its time steps")
    steps = known.terms.width(raw)
    need(steps == k.steps and k.channels % steps == 0, f"{steps} time steps, its kernel says {k.steps}")
    if isinstance(row.preloads, TileRun | StackRun | HalfRun):
        raise RefusedError("reads tiles where D and decays must be")
    need(len(row.preloads) == 1 + k.decays, f"{len(row.preloads)} words beside a line, not {1 + k.decays}")
    through = gains(known, row.preloads[:1], (lane,), k.channels)
    decay, columns = of_tensor(known, row.preloads[1:], GAIN, k.decays)
    numbers = known.lanes.all[lane]
    for state, column in enumerate(columns):
        wanted = [k.decays * one + state if one >= 0 else -1 for one in numbers.tolist()]
        have = known.lanes.all[column].tolist()
        need(have == wanted, f"{known.show(decay)} of state {state} lies at other lanes than its channels")
    wide = known.terms.width(decay)
    need(wide == k.channels * k.decays, f"{known.show(decay)} has {wide} numbers")
    return tuple(
        Stepped(Holds.STEPPED, value, raw, through, decay, row.n, i, row.index)
        for i in range(stepped_lines(k))
    )


def _beside(row: RowOperands, kind: type[_Line], size: int, holds: Holds, what: str) -> _Line:
    """The one line of channels that a row steps over, with what its states need."""
    found = blocks(row.src, kind, size, holds, "its channels")
    need(len(found) == 1, f"its operand is {len(found)} lines of channels, not 1")
    of = found[0]
    need(of.kernel == row.index, f"its channels are of another {what}")
    need(of.number == row.n, f"is line {row.n}, its channels are line {of.number}")
    return of


def _ssm(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """A line of channels over its own states; B and C are all there, in order."""
    k: SsmKernel = row.kernel
    _fits(known, k)
    of = _beside(row, Stepped, stepped_lines(k), Holds.STEPPED, "state space step")
    both = _in_order(known, row.src2, both_lines(k), "B and C")
    wide = known.terms.width(both)
    need(wide == 2 * k.groups * k.kept, f"B and C have {wide} lanes, its kernel says {2 * k.groups * k.kept}")
    need(k.channels % k.groups == 0, f"{k.groups} groups of {k.channels} channels")
    made = known.terms.ssm(of.value, of.raw, both, of.decay, of.through, (k.kept, k.groups, k.low, k.high))
    lane = known.lanes.line(row.n, k.channels)
    return Vector(Holds.F32, made, lane), StateLines(STATE, made, (lane,), row.index)


def _gate(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane; a zero stays zero."""
    value, lanes = vectors(known, row.src, Holds.F32, "its first operand")
    other, others = vectors(known, row.src2, Holds.F32, "its second operand")
    need(lanes == others, f"the lanes of {known.show(value)} lie beside other lanes of {known.show(other)}")
    wide = (known.terms.width(value), known.terms.width(other))
    need(wide[0] == wide[1], f"its operands have {wide[0]} and {wide[1]} lanes")
    made = known.terms.gate(value, other)
    return tuple(Vector(Holds.F32, made, one) for one in lanes)


def _line_of(known: Known, row: RowOperands) -> tuple[int, int]:
    """(value, lanes) of the line of channels that a row is of."""
    value, (lane,) = vectors(known, row.src, Holds.F32, "its channels")
    need(known.terms.width(value) == row.kernel.channels, f"its kernel says {row.kernel.channels} channels")
    need(lane == known.lanes.line(row.n, row.kernel.channels), f"its channels are not line {row.n} of them")
    return value, lane


def _decay(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Each lane of a line of channels with the decay and the beta of its head."""
    k: DeltaKernel = row.kernel
    _fits(known, k)
    value, lane = _line_of(known, row)
    raw = _in_order(known, row.src2, number_lines(k), "its decays and betas")
    found = known.terms.width(raw)
    need(found == 2 * k.heads, f"{found} numbers of heads, its kernel says {k.heads} heads")
    need(k.channels % k.heads == 0, f"{k.heads} heads of {k.channels} channels")
    kept = gains(known, row.preloads, (lane,), k.channels)
    return tuple(
        Decayed(Holds.DECAYED, value, raw, kept, row.n, i, row.index) for i in range(decayed_lines(k))
    )


def _delta(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """A line of channels over its own states; queries and keys are all there, in order."""
    k: DeltaKernel = row.kernel
    _fits(known, k)
    of = _beside(row, Decayed, decayed_lines(k), Holds.DECAYED, "delta rule")
    both = _in_order(known, row.src2, both_lines(k), "queries and keys")
    wide = known.terms.width(both)
    need(wide == 2 * k.groups * k.kept, f"{wide} lanes of keys, its kernel says {2 * k.groups * k.kept}")
    need(k.heads % k.groups == 0, f"{k.groups} groups of {k.heads} heads")
    made = known.terms.delta(of.value, of.raw, both, of.decay, (k.kept, k.groups))
    lane = known.lanes.line(row.n, k.channels)
    return Vector(Holds.F32, made, lane), StateLines(STATE, made, (lane,), row.index)


def _gate16(known: Known, row: RowOperands) -> tuple[Any, ...]:
    """Lane by lane; a zero stays zero."""
    value, lanes = vectors(known, row.src, Holds.F16, "its first operand")
    other, others = vectors(known, row.src2, Holds.F32, "its second operand")
    beside = known.lanes.pieces(others, F16_LANES)
    need(lanes == beside, f"the lanes of {known.show(value)} lie beside other lanes of {known.show(other)}")
    wide = (known.terms.width(value), known.terms.width(other))
    need(wide[0] == wide[1], f"its operands have {wide[0]} and {wide[1]} lanes")
    made = known.terms.gate16(value, other)
    return tuple(Vector(Holds.F16, made, one) for one in lanes)


PROOF = (
    Proved(op=Op.CONV, rule=_conv),
    Proved(op=Op.STEP, rule=_step),
    Proved(op=Op.SSM, rule=_ssm),
    Proved(op=Op.GATE, rule=_gate),
    Proved(op=Op.DECAY, rule=_decay),
    Proved(op=Op.DELTA, rule=_delta),
    Proved(op=Op.GATE16, rule=_gate16),
)
