"""Norms: their statistics, and what multiplies features by them and by gains."""

from dataclasses import dataclass
from typing import ClassVar

from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    FACTOR,
    GAIN,
    SHIFTED,
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
    Some,
    ceil_div,
    halved,
    one,
    same,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RstatKernel(Kernel):
    """1/rms of `width` features; shifted: times the factor that a shifted gain lacks.

    each: features of a piece that has lines of its own; 0: all are one piece.
    """

    family: ClassVar[str] = "rstat"
    later: ClassVar[tuple[str, ...]] = ("each",)
    width: Count
    eps: float
    shifted: bool = False
    each: Some = 0

    @property
    def piece(self) -> int:
        """F32 lines of a piece; 0: all are one."""
        return int(ceil_div(self.each, F32_LANES))

    @property
    def lines(self) -> int:
        """F32 lines of the features."""
        if not self.each:
            return int(ceil_div(self.width, F32_LANES))
        whole, rest = divmod(self.width, self.each)
        return int(whole * self.piece + ceil_div(rest, F32_LANES))


@dataclass(frozen=True, slots=True, kw_only=True)
class NormKernel(Kernel):
    """Features times their statistic and gain. f32: rounded to that, twice, rather than to fp16."""

    family: ClassVar[str] = "norm"
    later: ClassVar[tuple[str, ...]] = ("f32",)
    f32: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PrescaleKernel(Kernel):
    """Features times a shifted gain, rounded to fp16."""

    family: ClassVar[str] = "pre"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadNormKernel(Kernel):
    """RMS norm of each head. f32: rounded to that, twice, rather than to fp16; own: each head has a gain.

    length: over its length, in f32, without a gain.
    """

    family: ClassVar[str] = "hnorm"
    later: ClassVar[tuple[str, ...]] = ("f32", "own", "length")
    head_dim: Count
    eps: float
    f32: bool = False
    own: bool = False
    length: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentsKernel(Kernel):
    """Mean of `width` features and 1 / their deviation, eps being added to its square."""

    family: ClassVar[str] = "moments"
    width: Count
    eps: float

    @property
    def lines(self) -> int:
        """F32 lines of the features."""
        return int(ceil_div(self.width, F32_LANES))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNormKernel(Kernel):
    """Features less their mean, over their deviation, times a gain, plus a bias."""

    family: ClassVar[str] = "lnorm"


def gain_words(n: Lines, k: HeadNormKernel) -> Lines:
    """Words of the gain of n heads."""
    return ceil_div(n * k.head_dim if k.own else k.head_dim, F32_LANES)


def _gains_and_biases(n: Lines, k: LayerNormKernel) -> Lines:
    return 2 * n


def _f32_heads(n: Lines, k: HeadNormKernel) -> Lines:
    return ceil_div(n * k.head_dim, F32_LANES)


def _f16_heads(n: Lines, k: HeadNormKernel) -> Lines:
    return ceil_div(n * k.head_dim, F16_LANES)


def _normed(n: Lines, k: NormKernel) -> Lines:
    return n if k.f32 else halved(n, k)


def _normed_heads(n: Lines, k: HeadNormKernel) -> Lines:
    return _f32_heads(n, k) if k.f32 else _f16_heads(n, k)


def _norm_result(k: NormKernel | HeadNormKernel) -> int:
    return Holds.F32 if k.f32 else Holds.F16


def _has_gain(k: HeadNormKernel) -> bool:
    return not k.length


def _is_shifted(k: RstatKernel) -> bool:
    return k.shifted


_F32 = Operand("src", TRANSIENT, same, Holds.F32)

INSTRUCTIONS = (
    Instruction(
        op=Op.RSTAT,
        name="RSTAT",
        unit=VXM,
        kernel=RstatKernel,
        reads=(_F32, Operand("src3", WEIGHTS, one, FACTOR, present=_is_shifted)),
        write=Operand("dst", TRANSIENT, one, Holds.STAT),
        unread=True,
    ),
    Instruction(
        op=Op.PRE,
        name="PRE",
        unit=VXM,
        kernel=PrescaleKernel,
        reads=(_F32, Operand("src3", WEIGHTS, same, SHIFTED)),
        write=Operand("dst", TRANSIENT, halved, Holds.F16),
    ),
    Instruction(
        op=Op.NORM,
        name="NORM",
        unit=VXM,
        kernel=NormKernel,
        reads=(
            _F32,
            Operand("src2", TRANSIENT, one, Holds.STAT),
            Operand("src3", WEIGHTS, same, GAIN),
        ),
        write=Operand("dst", TRANSIENT, _normed, _norm_result),
    ),
    Instruction(
        op=Op.MOMENTS,
        name="MOMENTS",
        unit=VXM,
        kernel=MomentsKernel,
        reads=(_F32,),
        write=Operand("dst", TRANSIENT, one, Holds.MOMENTS),
    ),
    Instruction(
        op=Op.LNORM,
        name="LNORM",
        unit=VXM,
        kernel=LayerNormKernel,
        reads=(
            _F32,
            Operand("src2", TRANSIENT, one, Holds.MOMENTS),
            Operand("src3", WEIGHTS, _gains_and_biases, GAIN),
        ),
        write=Operand("dst", TRANSIENT, same, Holds.F32),
    ),
    Instruction(
        op=Op.HNORM,
        name="HNORM",
        unit=VXM,
        kernel=HeadNormKernel,
        reads=(
            Operand("src", TRANSIENT, _f32_heads, Holds.F32),
            Operand("src3", WEIGHTS, gain_words, GAIN, present=_has_gain),
        ),
        write=Operand("dst", TRANSIENT, _normed_heads, _norm_result),
        ordered=True,
    ),
)
