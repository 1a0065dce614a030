"""What a line of SRAM, an accumulator or a KV region holds, in the model's terms: tuples that compare.

`holds` comes first and differs between the records, so that no two kinds are ever equal.
"""

from typing import NamedTuple

PRODUCT, KV_HEAD, STATE = -1, -2, -3  # beside compiler.program.isa.Holds


class Vector(NamedTuple):
    """F32 or fp16 lanes of a value; lanes: which."""

    holds: int
    value: int
    lanes: int


class LayerMoments(NamedTuple):
    """Mean of a value and 1 / its deviation."""

    holds: int
    value: int
    eps: float


class Statistic(NamedTuple):
    """1/rms of a value. gain: times the power of two of that gain; -1: of none."""

    holds: int
    value: int
    eps: float
    gain: int


class Chosen(NamedTuple):
    """The largest of some lines of logits; lines: which, of 80 lanes each."""

    holds: int
    value: int
    lines: frozenset[int]


class Product(NamedTuple):
    """What one row adds to an accumulator: `value` times some rows `ks` of the columns of some tiles.

    tiles: of each line of the accumulator the matrix and a lane map of its columns.
    """

    holds: int
    value: int
    tiles: tuple[tuple[int, int], ...]
    ks: int


class TreeNode(NamedTuple):
    """A node of a tree of contract parts of a product; starts: first row of each, and the end of the last."""

    holds: int
    value: int
    codes: int
    scale: int
    columns: int
    starts: tuple[int, ...]


class Partial(NamedTuple):
    """A quarter of an f32 line of an exact partial sum, unscaled; ks: the sets of rows in it, in order."""

    holds: int
    value: int
    codes: int
    columns: int
    ks: tuple[int, ...]
    quarter: int


class Attending(NamedTuple):
    """Query heads of one KV head, in their order. kernel: the first equal one of the manifest."""

    queries: int
    heads: tuple[int, ...]
    keys: int
    head: int
    kernel: int


class Chunk(NamedTuple):
    """One line of the scores of a block, or of its weights and their exponents."""

    holds: int
    of: Attending
    block: int
    line: int


class Peak(NamedTuple):
    """The largest scores of a block."""

    holds: int
    of: Attending
    block: int


class Blocks(NamedTuple):
    """One line of a node: the weighted values of blocks first .. stop-1, added in the contract's tree."""

    holds: int
    of: Attending
    values: int
    first: int
    stop: int
    line: int


class KVHead(NamedTuple):
    """A KV region: one head of keys and values, or a stripe of its tokens."""

    holds: int
    keys: int
    values: int
    head: int
    stripe: int
    kernel: int


class Fetched(NamedTuple):
    """One line of a copy of a block of a KV region, which DDR5 keeps; block: of the context."""

    holds: int
    region: KVHead
    block: int
    line: int


class ColdTile(NamedTuple):
    """One line of a copy of the tile of a slot's expert, of the stack that DDR5 keeps of them."""

    holds: int
    run: "StackRun"
    slot: "ExpertSlot"
    kernel: int
    line: int


class Ranked(NamedTuple):
    """One line of logits or scores (part 0), or of which are among the `chosen` largest (part 1).

    bias: the tensor that sigmoids are chosen by besides, of the best `keep` of `groups`; -1: logits. gated:
    the last logit is that of a gate, and was not to be chosen.
    """

    holds: int
    value: int
    chosen: int
    line: int
    part: int
    bias: int = -1
    groups: int = 1
    keep: int = 1
    gated: bool = False


class ExpertSlot(NamedTuple):
    """One of the experts that the rows of a step choose, of `some` from `first` on; value: the choice."""

    holds: int
    value: int
    slot: int
    slots: int
    first: int
    some: int


class Stepped(NamedTuple):
    """One line of what a state space row takes of a line of channels: with its time steps, D, decays.

    number: of the line of channels. kernel: the first equal one of the manifest.
    """

    holds: int
    value: int
    raw: int
    through: int
    decay: int
    number: int
    line: int
    kernel: int


class Decayed(NamedTuple):
    """One of the lines that line `number` of channels is beside what is left of its states, and its betas."""

    holds: int
    value: int
    raw: int
    decay: int
    number: int
    line: int
    kernel: int


class StateLines(NamedTuple):
    """A state: what a convolution or a state space step keeps of some lines of its channels."""

    holds: int
    value: int
    lanes: tuple[int, ...]
    kernel: int


class Preload(NamedTuple):
    """A preloaded value; columns: a lane map of its tensor, -1 where it has none."""

    kind: int
    tensor: int
    columns: int
    lines: int


class StackRun(NamedTuple):
    """Tiles side by side of `some` experts of a stack from `first` on, or halves of them, as `TileRun`."""

    kind: int
    rows: int
    tiles: tuple[tuple[int, int], ...]
    first: int
    some: int


class HalfRun(NamedTuple):
    """Tiles of fp16 weights one below the other: lane maps of the rows of each, of the columns of all."""

    kind: int
    tensor: int
    columns: int
    rows: tuple[int, ...]


class TileRun(NamedTuple):
    """Tiles side by side: a lane map of their rows, and of each the matrix and a lane map of its columns."""

    kind: int
    rows: int
    tiles: tuple[tuple[int, int], ...]
