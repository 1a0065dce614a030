"""The instruction words: what one row of a program means, operand by operand.

A *word* is one 320-byte vector, the unit of SRAM addresses and of link slots. A *line* is the words that
one vector of lanes takes for all `rows` of the batch: `rows` consecutive words, row by row. Transient
operands are addressed at their first word and always start at a multiple of `rows`. A word holds 160 fp16,
80 f32, 80 int32 or 20 wide (two f64) lanes; weights hold 320 e4m3 lanes of one column.

Hardware: the vendor stores fp16 as two byte planes of 320 lanes (facts: hardware.md section 1); here the same
bytes lie densely, so that a slice of any tensor moves in whole words.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

WORD_BYTES = 320
F16_LANES = 160
F32_LANES = 80
WIDE_LANES = 20
TILE_ROWS = 320

TRANSIENT, WEIGHTS, KV, SHARED = range(4)  # SHARED: weights that all calls on a chip share (RoPE angles)
SPACE_SHIFT = 40
TAG_SHIFT = 40

Kernel = Mapping[str, Any]


class Op(IntEnum):
    """Opcodes. `n` counts f32 lines unless the row says otherwise; `aux` is the kernel (SEND: lanes)."""

    SEND = 0  # n lines from src on chip to dst on peer, over lanes lane .. lane+aux-1
    FORWARD = 1  # a SEND whose lines arrived by a transfer themselves: pays the forwarding latency too
    EMBED = 2  # dst f32 lines <- row of the fp16 table at src (weights) chosen by the step's token
    RSTAT = 3  # dst one line (f32 lane 0: 1/rms) <- n f32 lines at src
    NORM = 4  # dst fp16 lines <- n f32 lines at src, stat line src2, gain words src3 (weights)
    HNORM = 5  # per-head RMS norm: dst fp16 <- n dense heads (f32) at src, gain words src3 (weights)
    ROPE = (
        6  # dst fp16 <- n dense heads at src (f32, or fp16 by kernel), table src2 (weights) at the position
    )
    CAST = 7  # dst fp16 lines <- n f32 lines at src, rounded
    KVW = 8  # KV words at dst (kv), at the step's position <- K heads src, V heads src2 (one kv head, fp16);
    #          a head dealt over several regions: src3 is the stripe of this one, others take nothing
    QK = 9  # dst scores <- q heads src (fp16), K of chunk n at src2 (kv)
    SMAX = 10  # dst one line (f32 lane per head: max) <- scores of n chunks at src
    EXP = 11  # dst weights (int32), a line of sums <- scores of one chunk src, max lines of all chunks src2
    PV = 12  # dst wide lines <- weights of one chunk at src, V of chunk n at src2 (kv)
    AOUT = 13  # dst fp16 heads <- n wide partials at src, n sum lines at src2 (a stride apart)
    MM = 14  # accumulator dst of the plane += k tile at src (fp16 lines) x weight tile src2 (80 n words)
    WB = 15  # dst n f32 (or 4n wide) lines <- accumulator src of the plane, scale words src2; src3 MMs in it
    RED = 16  # dst n f32 (or 4n wide) lines <- parts wide partials of 4n lines at src, scale words src2
    ADD = 17  # dst n f32 lines <- n f32 lines src + n f32 lines src2
    GLU = 18  # dst fp16 lines <- gate n f32 lines src, up n f32 lines src2
    ARGMAX = 19  # dst one line (f32 value, int32 index) <- n logits lines src, first of global line src3
    ARGRED = 20  # dst one line (value, index) <- n such lines at src
    ASUM = (
        21  # dst one wide partial and its sum line <- n wide partials at src, n sum lines at src2 (as AOUT)
    )
    AEND = 22  # dst fp16 heads <- n results of ASUM at src, all stripes of one kv head
    TAKE = 23  # dst n fp16 lines <- the host lane: from line src3 of the step's message on
    GIVE = 24  # n f32 lines (or fp16, by kernel) at src -> the host lane: from line src3 of the answer on
    KVIN = 25  # KV words at dst (kv) of at most n consecutive tokens of a sequence <- the host lane; which
    #            sequence and the first position are data. A call takes the message of one layer, K and V of
    #            all its KV heads; src3 is the row's line of the message: KV head * stripes + stripe
    KVOUT = 26  # KV words at src2 (kv) -> the host lane: line src3 of the message of a layer, as KVIN


COLUMNS = ("op", "chip", "unit", "t0", "t1", "dst", "src", "src2", "src3", "aux", "n", "peer", "lane")
TAGS = ("dst_tag", "src_tag", "src2_tag", "src3_tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Many instructions, one row each: equally long int64 arrays. Absent operands are -1."""

    op: np.ndarray
    chip: np.ndarray
    unit: np.ndarray
    t0: np.ndarray
    t1: np.ndarray
    dst: np.ndarray
    src: np.ndarray
    src2: np.ndarray
    src3: np.ndarray
    aux: np.ndarray
    n: np.ndarray
    peer: np.ndarray
    lane: np.ndarray
    dst_tag: np.ndarray
    src_tag: np.ndarray
    src2_tag: np.ndarray
    src3_tag: np.ndarray

    def __len__(self) -> int:
        return len(self.op)

    def take(self, rows: np.ndarray) -> "Columns":
        """The rows named by an index or mask array."""
        return Columns(**{name: getattr(self, name)[rows] for name in COLUMNS + TAGS})


def ceil_div(a: Any, b: Any) -> Any:
    """Integer quotient rounded up, for ints and int arrays."""
    return -(-a // b)


def kv_words(head_dim: int, kv: str) -> int:
    """Words that K and V of one token and one kv head take together."""
    return ceil_div(2 * head_dim * (2 if kv == "fp16" else 1), WORD_BYTES)


def stripes(k: Kernel) -> int:
    """Regions that the tokens of a kv head are dealt over, 80 tokens (a score line) at a time."""
    return int(k.get("stripes", 1))


def stripe_tokens(tokens: int, count: int) -> int:
    """The most of so many consecutive tokens that can fall to one of `count` stripes, wherever they begin."""
    runs, rest = divmod(tokens, F32_LANES * count)
    return F32_LANES * runs + min(rest, F32_LANES)


def score_lines(k: Kernel) -> int:
    """Lines that the scores of one chunk take: one row of `chunk` f32 lanes per query head of the group."""
    return k["group"] * k["chunk"] // F32_LANES


def wire_words(op: Op, n: Any, k: Kernel, rows: int) -> Any:
    """Words that a row moves over the host lane of its chip, in `k["host_slot"]` cycles each."""
    if op in (Op.KVIN, Op.KVOUT):
        return n * k["kv_words"]
    return rows * (ceil_div(n, 2) if k.get("wire") == "fp8" else n)


def wide(k: Kernel) -> bool:
    """Whether a WB or RED row leaves partial sums, unscaled, rather than f32."""
    return bool(k.get("wide"))


def merged_lines(k: Kernel) -> int:
    """Lines of a wide partial of all heads of the group and of the sums that belong to it."""
    return ceil_div(k["group"] * k["head_dim"], WIDE_LANES) + 1


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of one opcode: where it lives and how many lines (transient) or words (else) it spans.

    `extent(n, kernel)` maps the row's count and its kernel to the span. `stride` (lines) says that the
    operand is `n` single pieces, a stride apart.
    """

    column: str
    space: int
    extent: Callable[[Any, Kernel], Any]
    stride: Callable[[Kernel], int] | None = None


def _f16_of_f32(n: Any, k: Kernel) -> Any:
    return ceil_div(n, 2)


def _heads(lanes: int) -> Callable[[Any, Kernel], Any]:
    return lambda n, k: ceil_div(n * k["head_dim"], lanes)


def _group(lanes: int) -> Callable[[Any, Kernel], Any]:
    return lambda n, k: ceil_div(k["group"] * k["head_dim"], lanes) + 0 * n


def _same(n: Any, k: Kernel) -> Any:
    return n


def _one(n: Any, k: Kernel) -> Any:
    return 1 + 0 * n


def _kv_chunk(n: Any, k: Kernel) -> Any:
    return k["cached"] * k["kv_stride"] + 0 * n


# Reads, per opcode. KV operands name the region of one (layer, kv head): `kv_stride` words for each of the
# `cached` sequences. The chunk is data of the row; which `sequences` of them a step takes is data of the
# step, as its positions are, and each of them has rows / sequences rows.
READS: dict[Op, tuple[Operand, ...]] = {
    Op.SEND: (Operand("src", TRANSIENT, _same),),
    Op.FORWARD: (Operand("src", TRANSIENT, _same),),
    Op.EMBED: (Operand("src", WEIGHTS, lambda n, k: k["vocab"] * k["stride"] + 0 * n),),
    Op.RSTAT: (Operand("src", TRANSIENT, _same),),
    Op.NORM: (
        Operand("src", TRANSIENT, _same),
        Operand("src2", TRANSIENT, _one),
        Operand("src3", WEIGHTS, _same),
    ),
    Op.HNORM: (
        Operand("src", TRANSIENT, _heads(F32_LANES)),
        Operand("src3", WEIGHTS, lambda n, k: ceil_div(k["head_dim"], F32_LANES) + 0 * n),
    ),
    Op.ROPE: (
        Operand(
            "src",
            TRANSIENT,
            lambda n, k: ceil_div(n * k["head_dim"], F32_LANES if k["input"] == "f32" else F16_LANES),
        ),
        Operand("src2", WEIGHTS, lambda n, k: k["positions"] * k["stride"] + 0 * n),
    ),
    Op.CAST: (Operand("src", TRANSIENT, _same),),
    Op.KVW: (
        Operand("src", TRANSIENT, lambda n, k: ceil_div(k["head_dim"], F16_LANES) + 0 * n),
        Operand("src2", TRANSIENT, lambda n, k: ceil_div(k["head_dim"], F16_LANES) + 0 * n),
    ),
    Op.QK: (Operand("src", TRANSIENT, _group(F16_LANES)), Operand("src2", KV, _kv_chunk)),
    Op.SMAX: (Operand("src", TRANSIENT, lambda n, k: n * score_lines(k)),),
    Op.EXP: (
        Operand("src", TRANSIENT, lambda n, k: score_lines(k) + 0 * n),
        Operand("src2", TRANSIENT, lambda n, k: k["chunks"] + 0 * n),
    ),
    Op.PV: (
        Operand("src", TRANSIENT, lambda n, k: score_lines(k) + 0 * n),
        Operand("src2", KV, _kv_chunk),
    ),
    Op.AOUT: (
        Operand("src", TRANSIENT, lambda n, k: n * ceil_div(k["group"] * k["head_dim"], WIDE_LANES)),
        Operand("src2", TRANSIENT, _one, lambda k: score_lines(k) + 1),
    ),
    Op.ASUM: (
        Operand("src", TRANSIENT, lambda n, k: n * ceil_div(k["group"] * k["head_dim"], WIDE_LANES)),
        Operand("src2", TRANSIENT, _one, lambda k: score_lines(k) + 1),
    ),
    Op.AEND: (Operand("src", TRANSIENT, lambda n, k: n * merged_lines(k)),),
    Op.MM: (
        Operand("src", TRANSIENT, lambda n, k: k["k_lines"] + 0 * n),
        Operand("src2", WEIGHTS, lambda n, k: F32_LANES * n),
    ),
    Op.WB: (Operand("src2", WEIGHTS, lambda n, k: 0 * n if k["wide"] else n),),
    Op.RED: (
        Operand("src", TRANSIENT, lambda n, k: 4 * n * k["parts"]),
        Operand("src2", WEIGHTS, lambda n, k: 0 * n if wide(k) else n),
    ),
    Op.ADD: (Operand("src", TRANSIENT, _same), Operand("src2", TRANSIENT, _same)),
    Op.GLU: (Operand("src", TRANSIENT, _same), Operand("src2", TRANSIENT, _same)),
    Op.ARGMAX: (Operand("src", TRANSIENT, _same),),
    Op.ARGRED: (Operand("src", TRANSIENT, _same),),
    Op.TAKE: (),
    Op.GIVE: (Operand("src", TRANSIENT, _same),),
    Op.KVIN: (),
    Op.KVOUT: (Operand("src2", KV, _kv_chunk),),
}

# The write at `dst`, per opcode: MM writes an accumulator, KVW a word that the position selects.
WRITES: dict[Op, Operand | None] = {
    Op.SEND: Operand("dst", TRANSIENT, _same),
    Op.FORWARD: Operand("dst", TRANSIENT, _same),
    Op.EMBED: Operand("dst", TRANSIENT, _same),
    Op.RSTAT: Operand("dst", TRANSIENT, _one),
    Op.NORM: Operand("dst", TRANSIENT, _f16_of_f32),
    Op.HNORM: Operand("dst", TRANSIENT, _heads(F16_LANES)),
    Op.ROPE: Operand("dst", TRANSIENT, _heads(F16_LANES)),
    Op.CAST: Operand("dst", TRANSIENT, _f16_of_f32),
    Op.KVW: Operand("dst", KV, _kv_chunk),
    Op.QK: Operand("dst", TRANSIENT, lambda n, k: score_lines(k) + 0 * n),
    Op.SMAX: Operand("dst", TRANSIENT, _one),
    Op.EXP: Operand("dst", TRANSIENT, lambda n, k: score_lines(k) + 1 + 0 * n),
    Op.PV: Operand("dst", TRANSIENT, _group(WIDE_LANES)),
    Op.AOUT: Operand("dst", TRANSIENT, _group(F16_LANES)),
    Op.ASUM: Operand("dst", TRANSIENT, lambda n, k: merged_lines(k) + 0 * n),
    Op.AEND: Operand("dst", TRANSIENT, _group(F16_LANES)),
    Op.MM: None,
    Op.WB: Operand("dst", TRANSIENT, lambda n, k: 4 * n if k["wide"] else n),
    Op.RED: Operand("dst", TRANSIENT, lambda n, k: 4 * n if wide(k) else n),
    Op.ADD: Operand("dst", TRANSIENT, _same),
    Op.GLU: Operand("dst", TRANSIENT, _f16_of_f32),
    Op.ARGMAX: Operand("dst", TRANSIENT, _one),
    Op.ARGRED: Operand("dst", TRANSIENT, _one),
    Op.TAKE: Operand("dst", TRANSIENT, _same),
    Op.GIVE: None,
    Op.KVIN: Operand("dst", KV, _kv_chunk),
    Op.KVOUT: None,
}
