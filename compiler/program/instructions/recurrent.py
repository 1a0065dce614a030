"""Layers that keep a state of fixed size: a causal convolution, the state space step, and their gate.

A state lies in the KV space, a word for each line of channels and each kept value: so a channel keeps its
lane.
"""

from dataclasses import dataclass
from typing import ClassVar

from compiler.program.isa import (
    F32_LANES,
    GAIN,
    KV,
    TRANSIENT,
    VXM,
    WEIGHTS,
    Count,
    Holds,
    Instruction,
    Kernel,
    Lines,
    Op,
    Operand,
    ceil_div,
    halved,
    one,
    same,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateKernel(Kernel):
    """The state of some lines of channels: `kept` words a line for each of `cached` sequences.

    rows: of the batch; sequences: of the cache that a step takes, each of which has rows / sequences rows.
    Which they are is data of the step, and so is whether one begins anew, which it does at position 0.
    """

    kept: Count
    cached: Count
    rows: Count
    sequences: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvKernel(StateKernel):
    """A convolution over the `kept` inputs and the new one; biased: whether a vector is added."""

    family: ClassVar[str] = "conv"
    biased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SsmKernel(StateKernel):
    """The state space step of one line of `channels`; `kept` is the number of states of a channel.

    steps: raw time steps, each of channels / steps channels. groups: of channels, with their B and C. decays:
    of a channel, 1 or one for each state. apart: a row gets the line of raw time steps that its channels
    have, else all of them. low, high: what time steps are clamped to.
    """

    family: ClassVar[str] = "ssm"
    channels: Count
    steps: Count
    groups: Count
    decays: Count
    apart: bool
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaKernel(StateKernel):
    """The gated delta rule on one line of `channels`; `kept` is the lanes of a key.

    heads: of channels, each with a decay and a beta; groups: of those, each with a query and a key.
    """

    family: ClassVar[str] = "delta"
    channels: Count
    heads: Count
    groups: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKernel(Kernel):
    """A vector times silu of another."""

    family: ClassVar[str] = "gate"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenKernel(Kernel):
    """An fp16 vector times the sigmoid of another."""

    family: ClassVar[str] = "open"


def tap_words(k: ConvKernel) -> int:
    """Words of the taps of a line, and of its bias."""
    return k.kept + 1 + k.biased


def stepped_lines(k: SsmKernel) -> int:
    """Lines of a line of channels, its time steps and its D, and of its decays."""
    return 3 + k.decays


def raw_lines(k: SsmKernel) -> int:
    """Lines of raw time steps that a row gets."""
    return 1 if k.apart else int(ceil_div(k.steps, F32_LANES))


def number_lines(k: DeltaKernel) -> int:
    """Lines of the raw decays and betas of all heads."""
    return int(ceil_div(2 * k.heads, F32_LANES))


def both_lines(k: SsmKernel | DeltaKernel) -> int:
    """Lines of B and C, or of queries and keys, of all groups."""
    return int(ceil_div(2 * k.groups * k.kept, F32_LANES))


def conv_state_words(n: Lines, k: ConvKernel) -> Lines:
    """Words of the state of n lines, all cached sequences."""
    return n * k.kept * k.cached


def line_state_words(n: Lines, k: StateKernel) -> Lines:
    """Words of the state of one line, all cached sequences."""
    return k.kept * k.cached


def state_lines(op: int, n: Lines) -> Lines:
    """Lines of channels whose state a row renews."""
    return n if op == Op.CONV else 1


def _taps(n: Lines, k: ConvKernel) -> Lines:
    return n * tap_words(k)


def _stepped(n: Lines, k: SsmKernel) -> Lines:
    return stepped_lines(k)


def _raw(n: Lines, k: SsmKernel) -> Lines:
    return raw_lines(k)


def _both(n: Lines, k: SsmKernel | DeltaKernel) -> Lines:
    return both_lines(k)


def _numbers(n: Lines, k: DeltaKernel) -> Lines:
    return number_lines(k)


def decayed_lines(k: DeltaKernel) -> int:
    """Lines of a line of channels, what is left of their states, and their betas."""
    return 3


def _decayed(n: Lines, k: DeltaKernel) -> Lines:
    return decayed_lines(k)


def _of_line(n: Lines, k: SsmKernel) -> Lines:
    return 1 + k.decays


_F32 = Operand("src", TRANSIENT, same, Holds.F32)
_TO_F32 = Operand("dst", TRANSIENT, same, Holds.F32)
_LINE = (("n", "line"),)

INSTRUCTIONS = (
    Instruction(
        op=Op.CONV,
        name="CONV",
        unit=VXM,
        kernel=ConvKernel,
        reads=(_F32, Operand("src2", KV, conv_state_words), Operand("src3", WEIGHTS, _taps, GAIN)),
        write=_TO_F32,
        ordered=True,
        renews="src2",
    ),
    Instruction(
        op=Op.STEP,
        name="STEP",
        unit=VXM,
        kernel=SsmKernel,
        reads=(
            Operand("src", TRANSIENT, one, Holds.F32),
            Operand("src2", TRANSIENT, _raw, Holds.F32),
            Operand("src3", WEIGHTS, _of_line, GAIN),
        ),
        write=Operand("dst", TRANSIENT, _stepped, Holds.STEPPED),
        least=0,
        numbers=_LINE,
    ),
    Instruction(
        op=Op.SSM,
        name="SSM",
        unit=VXM,
        kernel=SsmKernel,
        reads=(
            Operand("src", TRANSIENT, _stepped, Holds.STEPPED, whole=stepped_lines),
            Operand("src2", TRANSIENT, _both, Holds.F32),
            Operand("src3", KV, line_state_words),
        ),
        write=Operand("dst", TRANSIENT, one, Holds.F32),
        least=0,
        numbers=_LINE,
        renews="src3",
    ),
    Instruction(
        op=Op.DECAY,
        name="DECAY",
        unit=VXM,
        kernel=DeltaKernel,
        reads=(
            Operand("src", TRANSIENT, one, Holds.F32),
            Operand("src2", TRANSIENT, _numbers, Holds.F32),
            Operand("src3", WEIGHTS, one, GAIN),
        ),
        write=Operand("dst", TRANSIENT, _decayed, Holds.DECAYED),
        least=0,
        numbers=_LINE,
    ),
    Instruction(
        op=Op.DELTA,
        name="DELTA",
        unit=VXM,
        kernel=DeltaKernel,
        reads=(
            Operand("src", TRANSIENT, _decayed, Holds.DECAYED, whole=decayed_lines),
            Operand("src2", TRANSIENT, _both, Holds.F32),
            Operand("src3", KV, line_state_words),
        ),
        write=Operand("dst", TRANSIENT, one, Holds.F32),
        least=0,
        numbers=_LINE,
        renews="src3",
    ),
    Instruction(
        op=Op.GATE,
        name="GATE",
        unit=VXM,
        kernel=GateKernel,
        reads=(_F32, Operand("src2", TRANSIENT, same, Holds.F32)),
        write=_TO_F32,
        ordered=True,
    ),
    Instruction(
        op=Op.GATE16,
        name="GATE16",
        unit=VXM,
        kernel=OpenKernel,
        reads=(
            Operand("src", TRANSIENT, halved, Holds.F16),
            Operand("src2", TRANSIENT, same, Holds.F32),
        ),
        write=Operand("dst", TRANSIENT, halved, Holds.F16),
        ordered=True,
    ),
)
