"""The instruction words: what one row of a program means, operand by operand.

A *word* is one 320-byte vector, the unit of SRAM addresses and of link slots. A *line* is the words that
one vector of lanes takes for all `rows` of the batch: `rows` consecutive words, row by row. Transient
operands are addressed at their first word and always start at a multiple of `rows`. A word holds 160 fp16,
80 f32, 80 int32 or 20 wide (two f64) lanes; weights hold 320 e4m3 lanes of one column.

Each opcode is one `Instruction` record in `compiler/program/instructions/`, by families that share kernels;
`compiler/program/instruction_set.py` holds them all. How many cycles a row takes is not written here: it is
written twice, in `compiler/timing.py` and in the checker.

Hardware: the vendor stores fp16 as two byte planes of 320 lanes (facts: hardware.md section 1); here the same
bytes lie densely, so that a slice of any tensor moves in whole words.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge, Lt
from jaxtyping import Bool, Int

WORD_BYTES = 320
F16_LANES = 160
F32_LANES = 80
WIDE_LANES = 20
TILE_ROWS = 320

TRANSIENT, WEIGHTS, KV, SHARED = range(4)  # SHARED: weights that all calls on a chip share (RoPE angles)
SPACE_LETTERS = "twks"  # in text: t:0x10 is word 16 of the transient space, w of what is preloaded
SPACE_SHIFT = 40
TAG_SHIFT = 40
SCREEN = 60  # lines of a text at most
OPCODES = 256  # opcodes are below: the size of every table by opcode

MXM, DRAIN, VXM, LINK, HOST_IN, HOST_OUT = range(6)  # unit classes
UNIT_CLASSES = 6
MOST_LINES = 1 << 21  # of one row

# Kinds of preloaded values, see `Loads`.
TILE, SCALE, GAIN, TABLE, ANGLES, SHIFTED, FACTOR, STACK, TILE16, PAIRS, COLD = range(11)
LOAD_NAMES = (
    "TILE", "SCALE", "GAIN", "TABLE", "ANGLES", "SHIFTED", "FACTOR", "STACK", "TILE16", "PAIRS", "COLD"
)  # fmt: skip
STACKS = (STACK, PAIRS, COLD)  # the kinds that stand for tiles of several experts


class Holds(IntEnum):
    """What a transient line holds. A COPY is of the kind that it copies."""

    F32 = 0
    F16 = 1
    STAT = 2  # lane 0: 1/rms, perhaps times a power of two
    PEAK = 3  # lane per head: the largest score of a block
    PICK = 4  # a value and its column
    SCORE = 5
    WEIGHT = 6  # of the tokens of a block, then a line of exponents: a lane per head
    BLOCKS = 7  # f32 lanes of heads over part of a context, then exponent and sum of weights of each head
    WIDE = 9  # a wide partial of a product
    COPY = 10
    RANKED = 13  # logits of experts, then 1 for each that is chosen and 0 for others, line by line
    SHARE = 14  # how much each expert counts, 0 for those that are not chosen
    SLOT = 15  # lane 0: how much the slot's expert counts for a row, lane 1: its number
    NODE = 12  # of a product in contract parts: some neighbouring parts, rounded and added
    MOMENTS = 18  # lane 0: 1 / deviation, lane 1: mean
    STEPPED = 16  # a line of channels, its time steps, its D, and its decays
    DECAYED = 17  # a line of channels, what is left of their states, and their betas
    FETCHED = 19  # K and V of tokens of a block, as their KV words have them
    COLD = 20  # a tile of one expert that DDR5 keeps


class Op(IntEnum):
    """The project's own opcodes. `n` counts f32 lines unless the row says otherwise."""

    SEND = 0  # n lines from src on chip to dst on peer, over lanes lane .. lane+aux-1
    FORWARD = 1  # a SEND whose lines arrived by a transfer themselves: pays the forwarding latency too
    EMBED = 2  # dst f32 lines <- row of the fp16 table at src (weights) chosen by the step's token, or by its
    #            position, by kernel
    RSTAT = 3  # dst one line (f32 lane 0: 1/rms) <- n f32 lines at src; times the factor at src3, by kernel
    NORM = 4  # dst fp16 (or f32, by kernel) <- n f32 lines at src, stat line src2, gain words src3 (weights)
    HNORM = 5  # norm of each of n dense heads (f32) at src: dst fp16, or f32 by kernel; gain words src3
    #            (weights), unless over lengths
    ROPE = (
        6  # dst fp16 <- n dense heads at src (f32 or fp16, by kernel), table src2 (weights) at the position
    )
    CAST = 7  # dst fp16 lines <- n f32 lines at src, rounded
    KVW = 8  # KV words at dst (kv), at the step's position <- K heads src, V heads src2 (one kv head, fp16);
    #          a head dealt over several regions: src3 is the stripe of this one, others take nothing
    QK = 9  # dst scores <- q heads src (fp16), K of block n of the region at src2 (kv); of latent attention
    #         the parts of all heads that meet latents come first at src, then those that meet turned keys
    SMAX = 10  # dst one line (f32 lane per head: max) <- scores of one block at src
    EXP = 11  # dst weights (int32), a line of exponents <- scores of one block src, their max line src2
    PV = 12  # dst node of one block <- its weights at src, V of block n of the region at src2 (kv)
    AOUT = 13  # dst fp16 heads <- n neighbouring nodes at src, which make up the whole context; in a ring the
    #            node of each of its blocks. Sinks of the heads at src3 (weights), by kernel
    MM = 14  # accumulator dst of the plane += k tile at src (fp16 lines) x weight tile src2 (80 n words)
    WB = 15  # dst n f32 (or 4n wide) lines <- accumulator src3 of the plane, scale words src2, stat line src
    RED = 16  # dst n f32 (or 4n wide) lines <- parts wide partials of 4n lines at src, scales src3, stat src2
    ADD = 17  # dst n f32 lines <- n f32 lines src + n f32 lines src2
    GLU = 18  # dst fp16 lines <- gate n f32 lines src, up n f32 lines src2
    ARGMAX = 19  # dst one line (f32 value, int32 index) <- n logits lines src, first of global line src3
    ARGRED = 20  # dst one line (value, index) <- n such lines at src
    TAKE = 23  # dst n fp16 lines <- the host lane: from line src3 of the step's message on
    GIVE = 24  # n f32 lines (or fp16, by kernel) at src -> the host lane: from line src3 of the answer on
    KVIN = 25  # KV words at dst (kv) of at most n consecutive tokens of a sequence <- the host lane; which
    #            sequence and the first position are data. A call takes the message of one layer, K and V of
    #            all its KV heads; src3 is the row's line of the message: KV head * stripes + stripe.
    #            Or by kernel n lines of states of a sequence; src3 is the first one's number in the message
    KVOUT = 26  # KV words at src2 (kv) -> the host lane: line src3 of the message of a layer, as KVIN
    BIAS = 27  # dst n f32 lines <- n f32 lines src + n bias words src2 (weights)
    MUL = 28  # dst n f32 lines <- n f32 lines src times the kernel's factor
    MAD = 29  # dst n f32 lines <- n f32 lines src + n f32 lines src2 times the kernel's factor
    PRE = 30  # dst fp16 lines <- n f32 lines src times the shifted gain words src3 (weights), rounded
    TREE = 31  # dst n f32 lines <- nodes of a tree of contract parts, n lines each, at src
    NODE = 32  # dst node <- n neighbouring nodes at src
    CAP = 33  # dst n f32 lines <- n f32 lines src through the kernel's soft cap
    LOAD = 34  # n words at dst (weights) <- the lane of the chip: DDR5 of its FPGA, from word src3 of it on
    FETCH = 35  # dst K and V of block n of those that DDR5 keeps of the region at src2 (kv) <- the lane
    QKF = 36  # QK with K of a fetched block src2, which is block n of those that DDR5 keeps of its region
    PVF = 37  # PV with V of a fetched block src2, as QKF
    FETCHX = 38  # dst the tile of the expert that the slot line src names, one of those whose places in DDR5
    #              are at src3 (weights) <- the lane
    XMF = 39  # XMM with a fetched tile src2, which is one of those whose places are at src3 (weights)
    XMM = 40  # MM with one expert's tile of the stack src3 (weights): the one that the slot line src2 names
    MM16 = 41  # dst n f32 lines <- all fp16 lines at src x fp16 weights src2 (weights)
    RANK = 42  # dst 2n lines (logit, chosen) of experts <- sums at src, stat src2, scales src3 (weights)
    SHARE = 43  # dst n lines of weights <- 2n lines (logit, chosen) at src
    SLOTS = 44  # dst n slot lines, from slot src3 on <- the weights of all experts at src
    WGLU = 45  # dst fp16 lines <- n f32 lines of 40 gate and 40 up columns each at src, or 80 of up,
    #            slot line src2; by kernel a bias word of every expert for each of them at src3 (weights)
    CONV = (
        48  # dst n f32 lines <- n f32 lines src and the last inputs of their channels (state src2, renewed),
    )
    #            tap words and a bias (weights) src3
    STEP = 49  # dst line n of channels beside its time steps, D and decays <- line src, raw time steps src2,
    #            words of D and decays (weights) src3
    SSM = 50  # dst line n of results <- its channels and time steps src, B and C src2, states src3 (renewed)
    GATE = 51  # dst n f32 lines <- n f32 lines src times silu of n f32 lines src2
    DECAY = 52  # dst line n of channels beside what is left of their states, and their betas <- line src,
    #             raw numbers of heads src2, words of decays (weights) src3
    DELTA = 53  # dst line n of results <- its channels src, queries and keys src2, states src3 (renewed)
    GATE16 = 54  # dst fp16 lines <- fp16 lines at src times the sigmoid of n f32 lines src2
    MOMENTS = 55  # dst one line (1 / deviation, mean) <- n f32 lines at src
    LNORM = 56  # dst n f32 lines <- n f32 lines src, moments line src2, n gain words and n bias words src3
    VMUL = 57  # dst n f32 lines <- n f32 lines src times n words of factors src2 (weights), lane by lane


OF_EXPERTS = (Op.XMM, Op.XMF)
PRODUCTS = (Op.MM, *OF_EXPERTS)  # what adds into an accumulator

COLUMNS = ("op", "chip", "unit", "t0", "t1", "dst", "src", "src2", "src3", "aux", "n", "peer", "lane")
TAGS = ("dst_tag", "src_tag", "src2_tag", "src3_tag")
OPERANDS = ("dst", "src", "src2", "src3")
Column = Int[np.ndarray, " rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Many instructions, one row each: equally long int64 arrays. Absent operands are -1.

    `aux` is the kernel, an index of the manifest's `kernels`; of SEND and FORWARD the lanes that they take.
    """

    op: Column
    chip: Column
    unit: Column
    t0: Column
    t1: Column
    dst: Column
    src: Column
    src2: Column
    src3: Column
    aux: Column
    n: Column
    peer: Column
    lane: Column
    dst_tag: Column
    src_tag: Column
    src2_tag: Column
    src3_tag: Column

    def __len__(self) -> int:
        return len(self.op)

    def take(self, rows: Int[np.ndarray, " some"] | Bool[np.ndarray, " rows"]) -> "Columns":
        """The rows named by an index or mask array."""
        return Columns(**{name: getattr(self, name)[rows] for name in COLUMNS + TAGS})


Count = Annotated[int, Ge(1), Lt(1 << 31)]  # of a kernel: a positive number of things
Some = Annotated[int, Ge(0), Lt(1 << 31)]  # of a kernel: a number of things, perhaps none
Lines = Any  # int or int array: how many, elementwise with the counts `n` of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The static attributes that rows of a family of instructions share: one frozen record per family.

    Fields are `Count`, a `Literal`, `float` or `bool`: the checker and the reader of program files hold
    values against these types. `family` names the record in files; `later` the fields that came after
    digests, which are left out where they hold their default.
    """

    family: ClassVar[str] = "transfer"
    later: ClassVar[tuple[str, ...]] = ()

    def said(self) -> dict[str, Any]:
        """The fields by name, those of `later` only where they say something."""
        usual = {field.name: field.default for field in fields(self)}
        held = asdict(self)
        return {name: value for name, value in held.items() if name not in self.later or value != usual[name]}


TRANSFER = Kernel()  # of SEND and FORWARD, whose `aux` is a number of lanes


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of one opcode: where it lives and how many lines (transient) or words (else) it spans.

    `count(n, kernel)` maps the row's count and its kernel to the span; `stride(kernel)`, in lines, says that
    the operand is `n` single pieces, a stride apart. `holds`: what every line holds, or the kind of preloaded
    value. `whole(kernel)`: this many lines only make sense together, from one row and in order. `present`:
    whether rows of a kernel have the operand at all. tagged: whether a tag says which value it is. installed:
    in planes, as weights are: not through the activation ports.
    """

    column: str
    space: int
    count: Callable[[Lines, Any], Lines]
    holds: int | Callable[[Any], int] = -1
    stride: Callable[[Any], int] | None = None
    whole: Callable[[Any], int] | None = None
    present: Callable[[Any], bool] | None = None
    tagged: bool = True
    installed: bool = False

    def extent(self, n: Lines, kernel: Kernel) -> Lines:
        """Lines or words of rows with counts `n`, as many numbers as there are counts."""
        if not self.is_in(kernel):
            return 0 * n
        found = self.count(n, kernel)
        return np.full(n.shape, found) if isinstance(n, np.ndarray) and not np.ndim(found) else found

    def is_in(self, kernel: Kernel) -> bool:
        """Whether rows of a kernel have it."""
        return self.present is None or self.present(kernel)

    def kind(self, kernel: Kernel) -> int:
        """What its lines or words hold: a `Holds`, or a kind of preloaded value."""
        return self.holds(kernel) if callable(self.holds) else self.holds

    def block(self, kernel: Kernel) -> int:
        """Lines that must be one whole result."""
        return 1 if self.whole is None else self.whole(kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """Everything that the language says of one opcode; its cycles are said elsewhere, twice.

    op: its number, stated once and for all. forms: other records of kernels that its rows may have. write:
    the value at `dst`; None for what leaves no addressed line (MM an accumulator, GIVE and KVOUT a message).
    least, most: bounds of `n`. ordered: line i of the result is made of line i of the operands. unread: a
    result may lie where no row reads it. moves: of rows that make up programs of their own, the kind of
    program. numbers: the columns besides the operands that say something, and what each is called in text.
    renews: the operand in the KV space that rows read as the step before left it, and leave anew when they
    commit; nothing for most.
    """

    op: int
    name: str
    unit: int
    kernel: type[Kernel]
    reads: tuple[Operand, ...]
    write: Operand | None
    least: int = 1
    most: int = MOST_LINES
    ordered: bool = False
    unread: bool = False
    moves: str = ""
    numbers: tuple[tuple[str, str], ...] = ()
    forms: tuple[type[Kernel], ...] = ()
    renews: str = ""

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The reads, then the write."""
        return self.reads + (() if self.write is None else (self.write,))


def few(lines: Sequence[str], most: int = SCREEN) -> str:
    """Lines below one another, as many as fit a screen, and how many are left out."""
    more = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([*lines[:most], *more])


def by_opcode(values: Sequence[tuple[int, int]], default: int) -> Int[np.ndarray, " opcodes"]:
    """A table by opcode."""
    out = np.full(OPCODES, default)
    for op, value in values:
        out[op] = value
    return out


def is_transfer(op: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Which rows are SEND or FORWARD."""
    return (op == Op.SEND) | (op == Op.FORWARD)


def ceil_div(a: Any, b: Any) -> Any:
    """Integer quotient rounded up, for ints and int arrays."""
    return -(-a // b)


def same(n: Lines, k: Kernel) -> Lines:
    """As many lines as the row counts."""
    return n


def one(n: Lines, k: Kernel) -> Lines:
    """One line."""
    return 1


def halved(n: Lines, k: Kernel) -> Lines:
    """The fp16 lines of n f32 lines."""
    return ceil_div(n, 2)
