"""Attention over a KV cache: append, scores, softmax in exact sums, weighted values, and their merging."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    KV,
    MXM,
    TRANSIENT,
    VXM,
    WIDE_LANES,
    WORD_BYTES,
    Count,
    Holds,
    Instruction,
    Kernel,
    Lines,
    Op,
    Operand,
    ceil_div,
    one,
)

KVFormat = Literal["fp16", "fp8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KVKernel(Kernel):
    """The KV region of one (layer, kv head, stripe): `kv_stride` words for each of `cached` sequences.

    capacity: tokens of a sequence that it holds. kv_words: words of K and V of one token. stripes: regions
    that the tokens of a head are dealt over, 80 tokens (a score line) at a time.
    """

    head_dim: Count
    kv: KVFormat
    kv_words: Count
    kv_stride: Count
    capacity: Count
    cached: Count
    stripes: Count = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernel(KVKernel):
    """Attention of `group` query heads on one kv head over `chunks` chunks of `chunk` tokens.

    rows: of the batch; sequences: of the cache that a step takes. frac: fraction bits of a softmax weight.
    The chunk of a row is its data; which `sequences` of the `cached` ones a step takes is data of the step,
    as its positions are, and each of them has rows / sequences rows.
    """

    family: ClassVar[str] = "attention"
    group: Count
    chunk: Count
    chunks: Count
    frac: Count
    rows: Count
    sequences: Count


def kv_words(head_dim: int, kv: str) -> int:
    """Words that K and V of one token and one kv head take together."""
    return ceil_div(2 * head_dim * (2 if kv == "fp16" else 1), WORD_BYTES)


def stripe_tokens(tokens: int, count: int) -> int:
    """The most of `tokens` consecutive tokens that fall to one of `count` stripes, wherever they begin."""
    runs, rest = divmod(tokens, F32_LANES * count)
    return F32_LANES * runs + min(rest, F32_LANES)


def score_lines(k: AttentionKernel) -> int:
    """Lines that the scores of one chunk take: one row of `chunk` f32 lanes per query head of the group."""
    return k.group * k.chunk // F32_LANES


def part_lines(k: AttentionKernel) -> int:
    """Lines of a wide partial of all heads of the group."""
    return ceil_div(k.group * k.head_dim, WIDE_LANES)


def merged_lines(k: AttentionKernel) -> int:
    """Lines of a wide partial of all heads of the group and of the sums that belong to it."""
    return part_lines(k) + 1


def kv_region_words(n: Lines, k: KVKernel) -> Lines:
    """Words of a KV region, all cached sequences."""
    return k.cached * k.kv_stride


def _head(n: Lines, k: AttentionKernel) -> Lines:
    return ceil_div(k.head_dim, F16_LANES)


def _heads(n: Lines, k: AttentionKernel) -> Lines:
    return ceil_div(k.group * k.head_dim, F16_LANES)


def _scores(n: Lines, k: AttentionKernel) -> Lines:
    return score_lines(k)


def _scores_of_chunks(n: Lines, k: AttentionKernel) -> Lines:
    return n * score_lines(k)


def _peaks(n: Lines, k: AttentionKernel) -> Lines:
    return k.chunks


def _weights_and_sum(n: Lines, k: AttentionKernel) -> Lines:
    return score_lines(k) + 1


def _part(n: Lines, k: AttentionKernel) -> Lines:
    return part_lines(k)


def _parts(n: Lines, k: AttentionKernel) -> Lines:
    return n * part_lines(k)


def _merged(n: Lines, k: AttentionKernel) -> Lines:
    return merged_lines(k)


def _all_merged(n: Lines, k: AttentionKernel) -> Lines:
    return n * merged_lines(k)


_REGION = Operand("src2", KV, kv_region_words)
_SCORES = Operand("src", TRANSIENT, _scores, Holds.SCORE, whole=score_lines)
_CHUNKS = (
    Operand("src", TRANSIENT, _parts, Holds.PART, whole=part_lines),
    Operand("src2", TRANSIENT, one, Holds.SUM, stride=lambda k: score_lines(k) + 1),
)
_TO_HEADS = Operand("dst", TRANSIENT, _heads, Holds.F16)

INSTRUCTIONS = (
    Instruction(
        op=Op.KVW,
        name="KVW",
        unit=VXM,
        kernel=AttentionKernel,
        reads=(Operand("src", TRANSIENT, _head, Holds.F16), Operand("src2", TRANSIENT, _head, Holds.F16)),
        write=Operand("dst", KV, kv_region_words),
        least=0,
        numbers=(("src3", "stripe"),),
    ),
    Instruction(
        op=Op.QK,
        name="QK",
        unit=MXM,
        kernel=AttentionKernel,
        reads=(Operand("src", TRANSIENT, _heads, Holds.F16), _REGION),
        write=Operand("dst", TRANSIENT, _scores, Holds.SCORE),
        least=0,
        numbers=(("n", "chunk"),),
    ),
    Instruction(
        op=Op.SMAX,
        name="SMAX",
        unit=VXM,
        kernel=AttentionKernel,
        reads=(Operand("src", TRANSIENT, _scores_of_chunks, Holds.SCORE, whole=score_lines),),
        write=Operand("dst", TRANSIENT, one, Holds.PEAK),
    ),
    Instruction(
        op=Op.EXP,
        name="EXP",
        unit=VXM,
        kernel=AttentionKernel,
        reads=(_SCORES, Operand("src2", TRANSIENT, _peaks, Holds.PEAK)),
        write=Operand("dst", TRANSIENT, _weights_and_sum, Holds.WEIGHT),
        least=0,
    ),
    Instruction(
        op=Op.PV,
        name="PV",
        unit=MXM,
        kernel=AttentionKernel,
        reads=(Operand("src", TRANSIENT, _scores, Holds.WEIGHT, whole=score_lines), _REGION),
        write=Operand("dst", TRANSIENT, _part, Holds.PART),
        least=0,
        numbers=(("n", "chunk"),),
    ),
    Instruction(
        op=Op.AOUT,
        name="AOUT",
        unit=VXM,
        kernel=AttentionKernel,
        reads=_CHUNKS,
        write=_TO_HEADS,
        unread=True,
    ),
    Instruction(
        op=Op.ASUM,
        name="ASUM",
        unit=VXM,
        kernel=AttentionKernel,
        reads=_CHUNKS,
        write=Operand("dst", TRANSIENT, _merged, Holds.MERGED),
    ),
    Instruction(
        op=Op.AEND,
        name="AEND",
        unit=VXM,
        kernel=AttentionKernel,
        reads=(Operand("src", TRANSIENT, _all_merged, Holds.MERGED, whole=merged_lines),),
        write=_TO_HEADS,
        unread=True,
    ),
)
