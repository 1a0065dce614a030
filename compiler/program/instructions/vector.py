"""Vector instructions: what the VXM chains do line by line, head by head, or over all lanes of a row."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from compiler.program.isa import (
    ANGLES,
    F16_LANES,
    F32_LANES,
    GAIN,
    TABLE,
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
class EmbedKernel(Kernel):
    """An embedding table of `vocab` rows, `stride` words apart. positions: chosen by them, not by tokens."""

    family: ClassVar[str] = "embed"
    later: ClassVar[tuple[str, ...]] = ("positions",)
    vocab: Count
    stride: Count
    positions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeKernel(Kernel):
    """Rotary embedding by a table of `positions`, `stride` words apart, of f32 or fp16 heads.

    first: which of them position 0 takes. pairs: of a position of the table, if not half of head_dim; of more
    the first are taken, pairs beyond fewer are not turned.
    """

    family: ClassVar[str] = "rope"
    later: ClassVar[tuple[str, ...]] = ("first", "pairs")
    head_dim: Count
    input: Literal["f32", "f16"]
    positions: Count
    stride: Count
    first: Some = 0
    pairs: Some = 0

    @property
    def table_pairs(self) -> int:
        """Pairs of lanes of a position of the table."""
        return self.pairs or self.head_dim // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CastKernel(Kernel):
    """f32 rounded to fp16. shares: what is rounded is how much each expert counts."""

    family: ClassVar[str] = "cast"
    later: ClassVar[tuple[str, ...]] = ("shares",)
    shares: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AddKernel(Kernel):
    """The residual sum."""

    family: ClassVar[str] = "add"


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasKernel(Kernel):
    """A vector added to the columns of a product."""

    family: ClassVar[str] = "bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class MulKernel(Kernel):
    """A constant factor."""

    family: ClassVar[str] = "mul"
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MadKernel(Kernel):
    """The residual sum with a constant factor, an f32 value, of what is added."""

    family: ClassVar[str] = "mad"
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneMulKernel(Kernel):
    """A factor for each lane, preloaded."""

    family: ClassVar[str] = "vmul"


@dataclass(frozen=True, slots=True, kw_only=True)
class CapKernel(Kernel):
    """A soft cap, an f32 value: cap tanh(x / cap)."""

    family: ClassVar[str] = "cap"
    cap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GluKernel(Kernel):
    """The activation of the gate, times up; of the kind `alone` without it, up being the gate again."""

    family: ClassVar[str] = "glu"
    activation: Literal["silu", "gelu", "gelu_erf", "relu", "gelu_erf_alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgmaxKernel(Kernel):
    """The largest logit among the first `vocab` columns."""

    family: ClassVar[str] = "argmax"
    vocab: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgredKernel(Kernel):
    """The largest of several maxima."""

    family: ClassVar[str] = "argred"


def _table_words(n: Lines, k: EmbedKernel) -> Lines:
    return k.vocab * k.stride


def _angle_words(n: Lines, k: RopeKernel) -> Lines:
    return k.positions * k.stride


def _f16_heads(n: Lines, k: RopeKernel) -> Lines:
    return ceil_div(n * k.head_dim, F16_LANES)


def _rope_heads(n: Lines, k: RopeKernel) -> Lines:
    return ceil_div(n * k.head_dim, F32_LANES if k.input == "f32" else F16_LANES)


def _cast_input(k: CastKernel) -> int:
    return Holds.SHARE if k.shares else Holds.F32


def _rope_input(k: RopeKernel) -> int:
    return Holds.F32 if k.input == "f32" else Holds.F16


_F32 = Operand("src", TRANSIENT, same, Holds.F32)
_OTHER = Operand("src2", TRANSIENT, same, Holds.F32)
_TO_F32 = Operand("dst", TRANSIENT, same, Holds.F32)
_TO_F16 = Operand("dst", TRANSIENT, halved, Holds.F16)
_TO_HEADS = Operand("dst", TRANSIENT, _f16_heads, Holds.F16)
_TO_PICK = Operand("dst", TRANSIENT, one, Holds.PICK)

INSTRUCTIONS = (
    Instruction(
        op=Op.EMBED,
        name="EMBED",
        unit=VXM,
        kernel=EmbedKernel,
        reads=(Operand("src", WEIGHTS, _table_words, TABLE),),
        write=_TO_F32,
    ),
    Instruction(
        op=Op.ROPE,
        name="ROPE",
        unit=VXM,
        kernel=RopeKernel,
        reads=(
            Operand("src", TRANSIENT, _rope_heads, _rope_input),
            Operand("src2", WEIGHTS, _angle_words, ANGLES, tagged=False),
        ),
        write=_TO_HEADS,
        ordered=True,
    ),
    Instruction(
        op=Op.CAST,
        name="CAST",
        unit=VXM,
        kernel=CastKernel,
        reads=(Operand("src", TRANSIENT, same, _cast_input),),
        write=_TO_F16,
        ordered=True,
    ),
    Instruction(
        op=Op.ADD, name="ADD", unit=VXM, kernel=AddKernel, reads=(_F32, _OTHER), write=_TO_F32, ordered=True
    ),
    Instruction(
        op=Op.BIAS,
        name="BIAS",
        unit=VXM,
        kernel=BiasKernel,
        reads=(_F32, Operand("src2", WEIGHTS, same, GAIN)),
        write=_TO_F32,
        ordered=True,
    ),
    Instruction(
        op=Op.MUL, name="MUL", unit=VXM, kernel=MulKernel, reads=(_F32,), write=_TO_F32, ordered=True
    ),
    Instruction(
        op=Op.MAD, name="MAD", unit=VXM, kernel=MadKernel, reads=(_F32, _OTHER), write=_TO_F32, ordered=True
    ),
    Instruction(
        op=Op.VMUL,
        name="VMUL",
        unit=VXM,
        kernel=LaneMulKernel,
        reads=(_F32, Operand("src2", WEIGHTS, same, GAIN)),
        write=_TO_F32,
        ordered=True,
    ),
    Instruction(
        op=Op.CAP, name="CAP", unit=VXM, kernel=CapKernel, reads=(_F32,), write=_TO_F32, ordered=True
    ),
    Instruction(
        op=Op.GLU, name="GLU", unit=VXM, kernel=GluKernel, reads=(_F32, _OTHER), write=_TO_F16, ordered=True
    ),
    Instruction(
        op=Op.ARGMAX,
        name="ARGMAX",
        unit=VXM,
        kernel=ArgmaxKernel,
        reads=(_F32,),
        write=_TO_PICK,
        numbers=(("src3", "first line"),),
    ),
    Instruction(
        op=Op.ARGRED,
        name="ARGRED",
        unit=VXM,
        kernel=ArgredKernel,
        reads=(Operand("src", TRANSIENT, same, Holds.PICK),),
        write=_TO_PICK,
        unread=True,
    ),
)
