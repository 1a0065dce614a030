"""Attention over a KV cache: append, scores, weights and values block by block, and the merging of blocks."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from compiler.program.isa import (
    F16_LANES,
    F32_LANES,
    GAIN,
    KV,
    MXM,
    TRANSIENT,
    VXM,
    WEIGHTS,
    WIDE_LANES,
    WORD_BYTES,
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
)

KVFormat = Literal["fp16", "fp8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KVKernel(Kernel):
    """The KV region of one (layer, kv head, stripe): `kv_stride` words for each of `cached` sequences.

    capacity: tokens of a sequence that it holds. kv_words: words of K and V of one token. stripes: regions
    that the tokens of a head are dealt over, `run` consecutive tokens at a time.
    """

    head_dim: Count
    kv: KVFormat
    kv_words: Count
    kv_stride: Count
    capacity: Count
    cached: Count
    run: Count
    stripes: Count = 1

    @property
    def key_lanes(self) -> int:
        """Lanes of a key that are kept beside the value of its token."""
        return self.head_dim

    @property
    def score_lanes(self) -> int:
        """Lanes of a query, each of which meets one of a key."""
        return self.head_dim

    @property
    def kept_tokens(self) -> int:
        """Tokens of a sequence that are kept of the region, in it or elsewhere."""
        return self.capacity

    @property
    def token_words(self) -> int:
        """Words that K and V of one token take together."""
        return kv_words(self.head_dim, self.kv, self.key_lanes)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernel(KVKernel):
    """Attention of `group` query heads on one kv head over a context of `chunks` blocks.

    block: tokens of a block of the contract. chunk: those of a block that a row takes, all but in a context
    that is shorter than one block. rows: of the batch; sequences: of the cache that a step takes.
    The block of a row, counted in its region, is its data; which `sequences` of the `cached` ones a step
    takes is data of the step, as its positions are, and each of them has rows / sequences rows.
    window, span, scale, cap, whole: as for the op `attention`; 0: none. sinks: whether heads have one.
    Where the blocks do not hold the context, the region is a ring: token t lies at t modulo `capacity`.
    early: blocks of the context that lie in DDR5, all before those in the region; reservoir: tokens of a
    sequence that DDR5 has room for, beside those of the region; host_slot: cycles of a word from there.
    """

    family: ClassVar[str] = "attention"
    later: ClassVar[tuple[str, ...]] = (
        *("window", "span", "scale", "cap", "sinks", "whole"),
        *("early", "reservoir", "host_slot"),
    )
    group: Count
    block: Count
    chunk: Count
    chunks: Count
    rows: Count
    sequences: Count
    window: Some = 0
    span: Some = 0
    scale: float = 0.0
    cap: float = 0.0
    sinks: bool = False
    whole: bool = False
    early: Some = 0
    reservoir: Some = 0
    host_slot: Some = 0

    @property
    def kept_tokens(self) -> int:
        """Those of the region, and those that DDR5 keeps of it."""
        return self.capacity + self.reservoir

    @property
    def reach(self) -> int:
        """The most tokens that a row sees; 0: all."""
        return min((tokens for tokens in (self.window, self.span) if tokens), default=0)

    @property
    def head_lines(self) -> int:
        """Fp16 lines of the heads of the group, as AOUT leaves them."""
        return int(ceil_div(self.group * self.head_dim, F16_LANES))

    @property
    def query_lines(self) -> int:
        """Fp16 lines of the heads of the group, as QK takes them."""
        return self.head_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttentionKernel(AttentionKernel):
    """Latent attention of `group` heads: a value has `head_dim` lanes and is all of its key but `turned`.

    A region holds the turned lanes of keys where others hold keys, so K is `turned` wide and V `head_dim`.
    Each head of queries and results begins on a line of its own. sigma: what products are multiplied by.
    """

    family: ClassVar[str] = "latent"
    turned: Count
    sigma: float

    @property
    def key_lanes(self) -> int:
        """The turned lanes."""
        return self.turned

    @property
    def score_lanes(self) -> int:
        """Lanes of a latent, and the turned ones."""
        return self.head_dim + self.turned

    @property
    def head_lines(self) -> int:
        """Fp16 lines of the heads of the group, each on lines of its own."""
        return self.group * int(ceil_div(self.head_dim, F16_LANES))

    @property
    def query_lines(self) -> int:
        """Those of the parts of all heads that meet latents, then those of their turned lanes."""
        return self.head_lines + self.group * int(ceil_div(self.turned, F16_LANES))


def is_ring(k: AttentionKernel, context: int) -> bool:
    """Whether the tokens of a context take turns in the region of a kernel."""
    return k.chunk * k.chunks < context


def ring_blocks(reach: int, block: int, rows: int) -> int:
    """Blocks in which the last `reach` tokens before each of `rows` consecutive ones are never overwritten.

    Nor does any of them lie with a token of another turn in one block, whatever its position.
    """
    return ceil_div(reach + rows - 2, block) + 1


def kv_words(head_dim: int, kv: str, key_lanes: int = 0) -> int:
    """Words that K and V of one token and one kv head take together. key_lanes: of K, if not head_dim."""
    lanes = head_dim + (key_lanes or head_dim)
    return ceil_div(lanes * (2 if kv == "fp16" else 1), WORD_BYTES)


def stripe_tokens(tokens: int, count: int, run: int) -> int:
    """The most of `tokens` consecutive tokens that fall to one of `count` stripes, wherever they begin."""
    if count == 1:
        return tokens
    runs, rest = divmod(tokens, run * count)
    return run * runs + min(rest, run)


def block_number(k: AttentionKernel, stripe: Lines, local: Lines) -> Lines:
    """Which block of the context is number `local` of the region of a stripe."""
    return k.early + dealt_number(k, stripe, local)


def dealt_number(k: AttentionKernel, stripe: Lines, local: Lines) -> Lines:
    """Which of the blocks that stripes are dealt together is number `local` of a stripe."""
    if k.stripes == 1:
        return local
    run = k.run // k.block
    return (local // run * k.stripes + stripe) * run + local % run


def score_lines(k: AttentionKernel) -> int:
    """Lines of the scores of one block: `chunk` f32 lanes of each query head of the group, in order."""
    return ceil_div(k.group * k.chunk, F32_LANES)


def weight_lines(k: AttentionKernel) -> int:
    """Lines of the weights of one block, and of their exponents: a lane per head."""
    return score_lines(k) + 1


def part_lines(k: AttentionKernel) -> int:
    """F32 lines of all heads of the group."""
    return ceil_div(k.group * k.head_dim, F32_LANES)


def node_lines(k: AttentionKernel) -> int:
    """Lines of a node: its heads, then the exponent and the sum of weights of each, in 16 bytes."""
    return part_lines(k) + ceil_div(k.group, WIDE_LANES)


def kv_region_words(n: Lines, k: KVKernel) -> Lines:
    """Words of a KV region, all cached sequences."""
    return k.cached * k.kv_stride


def _has_sinks(k: AttentionKernel) -> bool:
    return k.sinks


def _key(n: Lines, k: AttentionKernel) -> Lines:
    return ceil_div(k.key_lanes, F16_LANES)


def _head(n: Lines, k: AttentionKernel) -> Lines:
    return ceil_div(k.head_dim, F16_LANES)


def _heads(n: Lines, k: AttentionKernel) -> Lines:
    return k.head_lines


def queries_read(n: Lines, k: AttentionKernel) -> Lines:
    """Lines of the queries of a group."""
    return k.query_lines


def scores_made(n: Lines, k: AttentionKernel) -> Lines:
    """Lines of the scores of one block."""
    return score_lines(k)


def weights_made(n: Lines, k: AttentionKernel) -> Lines:
    """Lines of the weights of one block and their exponents."""
    return weight_lines(k)


def node_made(n: Lines, k: AttentionKernel) -> Lines:
    """Lines of a node."""
    return node_lines(k)


def _nodes(n: Lines, k: AttentionKernel) -> Lines:
    return n * node_lines(k)


_REGION = Operand("src2", KV, kv_region_words)
_SCORES = Operand("src", TRANSIENT, scores_made, Holds.SCORE, whole=score_lines)
_NODES = Operand("src", TRANSIENT, _nodes, Holds.BLOCKS, whole=node_lines)

INSTRUCTIONS = (
    Instruction(
        op=Op.KVW,
        name="KVW",
        unit=VXM,
        kernel=AttentionKernel,
        forms=(LatentAttentionKernel,),
        reads=(Operand("src", TRANSIENT, _key, Holds.F16), Operand("src2", TRANSIENT, _head, Holds.F16)),
        write=Operand("dst", KV, kv_region_words),
        least=0,
        numbers=(("src3", "stripe"),),
    ),
    Instruction(
        op=Op.QK,
        name="QK",
        unit=MXM,
        kernel=AttentionKernel,
        forms=(LatentAttentionKernel,),
        reads=(Operand("src", TRANSIENT, queries_read, Holds.F16), _REGION),
        write=Operand("dst", TRANSIENT, scores_made, Holds.SCORE),
        least=0,
        numbers=(("n", "block"),),
    ),
    Instruction(
        op=Op.SMAX,
        name="SMAX",
        unit=VXM,
        kernel=AttentionKernel,
        forms=(LatentAttentionKernel,),
        reads=(_SCORES,),
        write=Operand("dst", TRANSIENT, one, Holds.PEAK),
    ),
    Instruction(
        op=Op.EXP,
        name="EXP",
        unit=VXM,
        kernel=AttentionKernel,
        forms=(LatentAttentionKernel,),
        reads=(_SCORES, Operand("src2", TRANSIENT, one, Holds.PEAK)),
        write=Operand("dst", TRANSIENT, weights_made, Holds.WEIGHT),
    ),
    Instruction(
        op=Op.PV,
        name="PV",
        unit=MXM,
        kernel=AttentionKernel,
        forms=(LatentAttentionKernel,),
        reads=(Operand("src", TRANSIENT, weights_made, Holds.WEIGHT, whole=weight_lines), _REGION),
        write=Operand("dst", TRANSIENT, node_made, Holds.BLOCKS),
        least=0,
        numbers=(("n", "block"),),
    ),
    Instruction(
        op=Op.NODE,
        name="NODE",
        unit=VXM,
        kernel=AttentionKernel,
        forms=(LatentAttentionKernel,),
        reads=(_NODES,),
        write=Operand("dst", TRANSIENT, node_made, Holds.BLOCKS),
    ),
    Instruction(
        op=Op.AOUT,
        name="AOUT",
        unit=VXM,
        kernel=AttentionKernel,
        forms=(LatentAttentionKernel,),
        reads=(_NODES, Operand("src3", WEIGHTS, one, GAIN, present=_has_sinks)),
        write=Operand("dst", TRANSIENT, _heads, Holds.F16),
        unread=True,
    ),
)
