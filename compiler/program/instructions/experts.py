"""Mixtures of experts: routers, slots, products with a tile that the router chose, weighted activations.

A slot is an expert that a step computes. Its line holds, for every row, how much the expert counts (0 for
most rows), and the expert's number, which chooses the tile of a stack. No cycle depends on either.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from compiler.program.instructions.matmul import TILE_LINES
from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    GAIN,
    MXM,
    PAIRS,
    SCALE,
    STACK,
    TILE16,
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
    one,
    same,
)

PAIRED = F32_LANES // 2  # gate columns in a line, beside as many of up
UNGATED = "relu2"  # the activation of experts whose lines hold columns of up alone
HALF_TILE_WORDS = 2 * F32_LANES  # of a tile of fp16 weights, 80 columns wide


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTileKernel(Kernel):
    """A tile of `k_lines` fp16 lines of input rows, of one of `experts`: its number, or -1: the slot's.

    paired: it is half of a tile, the other half is another expert's.
    """

    family: ClassVar[str] = "xmm"
    later: ClassVar[tuple[str, ...]] = ("paired",)
    k_lines: Count
    experts: Count
    expert: int
    paired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfKernel(Kernel):
    """All input rows, `k_lines` fp16 lines, times fp16 weights."""

    family: ClassVar[str] = "mm16"
    k_lines: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class RankKernel(Kernel):
    """Sums times a statistic and scales, and which are among the `chosen` largest of `experts`.

    first: line of the first expert that is ranked, of 80 each. sigmoid: what is ranked is the sigmoid of the
    logits plus a bias, which lies behind the scales, in the `keep` best of `groups` groups. biased: what is
    ranked are logits with a bias, which lies there likewise. gated: the last of `experts` is none, and never
    among the largest, but the logit of the gate of a shared one. normed: there is a statistic.
    """

    family: ClassVar[str] = "rank"
    later: ClassVar[tuple[str, ...]] = ("biased", "gated", "normed")
    experts: Count
    chosen: Count
    first: int
    sigmoid: bool = False
    groups: Count = 1
    keep: Count = 1
    biased: bool = False
    gated: bool = False
    normed: bool = True

    @property
    def has_bias(self) -> bool:
        """Whether a bias lies behind the scales."""
        return self.sigmoid or self.biased


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareKernel(Kernel):
    """Weights of what was chosen of `experts`, of the chosen alone or of all, and 1 for `shared` ones.

    scores: what was ranked are scores, and weights these times `scale`; else logits of a softmax. gated: the
    last of `experts` is the shared one, and counts the sigmoid of its logit.
    """

    family: ClassVar[str] = "share"
    later: ClassVar[tuple[str, ...]] = ("gated",)
    experts: Count
    renormalise: bool
    shared: int = 0
    scores: bool = False
    scale: float = 1.0
    gated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsKernel(Kernel):
    """Slots for the experts that any row chose, `chosen` each at most; with a slot for each, its own.

    first, some: slots are for this many experts of all `experts`, from the first on; 0: for all of them.
    shared: the last experts, which every row takes and which are among the `chosen`. bounded: rows can choose
    more experts than there are slots; those of the highest numbers are then left out, and counted.
    """

    family: ClassVar[str] = "slots"
    later: ClassVar[tuple[str, ...]] = ("first", "some", "shared", "bounded")
    experts: Count
    chosen: Count
    slots: Count
    first: int = 0
    some: int = 0
    shared: int = 0
    bounded: bool = False

    @property
    def held(self) -> int:
        """The experts that the slots are for."""
        return self.some or self.experts


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedGluKernel(Kernel):
    """The activation of the gate, times up, times the weight of the slot; of `relu2` there is no gate.

    biases: of how many experts a bias lies beside each line, of which the slot's is added; 0: of none.
    """

    family: ClassVar[str] = "wglu"
    later: ClassVar[tuple[str, ...]] = ("biases",)
    activation: Literal["silu", "gelu", "gelu_erf", "swiglu_oai", "silu_weighed", "relu2"]
    biases: Some = 0

    @property
    def columns(self) -> int:
        """Columns of an expert in a line: of the gate, beside as many of up, or of up alone."""
        return strip(self.activation)


def strip(activation: str) -> int:
    """Columns of an expert in a line of 80."""
    return F32_LANES if activation == UNGATED else PAIRED


def _k_lines(n: Lines, k: ExpertTileKernel | HalfKernel) -> Lines:
    return k.k_lines


def _stack_words(n: Lines, k: ExpertTileKernel) -> Lines:
    return F32_LANES * n * (ceil_div(k.experts, 2) if k.paired else k.experts)


def _stack_kind(k: ExpertTileKernel) -> int:
    return PAIRS if k.paired else STACK


def _is_chosen(k: ExpertTileKernel) -> bool:
    return k.expert < 0


def half_words(n: Lines, k: HalfKernel) -> Lines:
    """Words of the weights of n columns' lines."""
    return HALF_TILE_WORDS * n * ceil_div(k.k_lines, 2)


def slots_needed(k: SlotsKernel, rows: int) -> int:
    """Slots that suffice whatever the rows choose: of routed experts all that they can, shared ones once."""
    shared = max(k.first + k.held - max(k.first, k.experts - k.shared), 0)
    return min(k.held, rows * (k.chosen - k.shared) + shared)


def bound_of(kernels: Iterable[Kernel]) -> str:
    """For which inputs a program with slots that may not suffice holds, in words; empty if they suffice."""
    few = [one.slots for one in kernels if isinstance(one, SlotsKernel) and one.bounded]
    return f"whose rows choose at most {min(few)} experts of a table" if few else ""


def expert_lines(n: Lines, k: RankKernel | ShareKernel | SlotsKernel) -> Lines:
    """Lines of a number for each expert."""
    return ceil_div(k.experts, F32_LANES)


def _scale_lines(n: Lines, k: RankKernel) -> Lines:
    return expert_lines(n, k) * (2 if k.has_bias else 1)


def _has_statistic(k: RankKernel) -> bool:
    return k.normed


def _ranked_lines(n: Lines, k: ShareKernel) -> Lines:
    return 2 * expert_lines(n, k)


def _twice(n: Lines, k: Kernel) -> Lines:
    return 2 * n


def _bias_words(n: Lines, k: WeightedGluKernel) -> Lines:
    return n * k.biases


def _is_biased(k: WeightedGluKernel) -> bool:
    return k.biases > 0


def _weighed_lines(n: Lines, k: WeightedGluKernel) -> Lines:
    return ceil_div(n * k.columns, F16_LANES)


INSTRUCTIONS = (
    Instruction(
        op=Op.XMM,
        name="XMM",
        unit=MXM,
        kernel=ExpertTileKernel,
        reads=(
            Operand("src", TRANSIENT, _k_lines, Holds.F16),
            Operand("src2", TRANSIENT, one, Holds.SLOT, present=_is_chosen),
            Operand("src3", WEIGHTS, _stack_words, _stack_kind),
        ),
        write=None,
        most=TILE_LINES,
        numbers=(("dst", "accumulator"),),
    ),
    Instruction(
        op=Op.MM16,
        name="MM16",
        unit=MXM,
        kernel=HalfKernel,
        reads=(
            Operand("src", TRANSIENT, _k_lines, Holds.F16),
            Operand("src2", WEIGHTS, half_words, TILE16),
        ),
        write=Operand("dst", TRANSIENT, same, Holds.F32),
        most=1,
        unread=True,
    ),
    Instruction(
        op=Op.RANK,
        name="RANK",
        unit=VXM,
        kernel=RankKernel,
        reads=(
            Operand("src", TRANSIENT, expert_lines, Holds.F32),
            Operand("src2", TRANSIENT, one, Holds.STAT, present=_has_statistic),
            Operand("src3", WEIGHTS, _scale_lines, SCALE),
        ),
        write=Operand("dst", TRANSIENT, _twice, Holds.RANKED),
        unread=True,
    ),
    Instruction(
        op=Op.SHARE,
        name="SHARE",
        unit=VXM,
        kernel=ShareKernel,
        reads=(Operand("src", TRANSIENT, _ranked_lines, Holds.RANKED),),
        write=Operand("dst", TRANSIENT, same, Holds.SHARE),
        unread=True,
    ),
    Instruction(
        op=Op.SLOTS,
        name="SLOTS",
        unit=VXM,
        kernel=SlotsKernel,
        reads=(Operand("src", TRANSIENT, expert_lines, Holds.SHARE),),
        write=Operand("dst", TRANSIENT, same, Holds.SLOT),
        unread=True,
        numbers=(("src3", "first slot"),),
    ),
    Instruction(
        op=Op.WGLU,
        name="WGLU",
        unit=VXM,
        kernel=WeightedGluKernel,
        reads=(
            Operand("src", TRANSIENT, same, Holds.F32),
            Operand("src2", TRANSIENT, one, Holds.SLOT),
            Operand("src3", WEIGHTS, _bias_words, GAIN, present=_is_biased),
        ),
        write=Operand("dst", TRANSIENT, _weighed_lines, Holds.F16),
        ordered=True,
    ),
)
