"""Who keeps the context of a KV head: the ranks of its stripes, their regions, the order of their blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.lower.context import Lowering
from compiler.lower.layout import Deal, Lines
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import KV, SPACE_SHIFT, ceil_div
from fabric.paths import hops


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The KV heads of one attention and their stripes.

    owner: rank of each head. Arrays over (head, stripe): rank that holds it, first word and tag of its KV
    region, its KVW row. query: tag of the first line of each head's queries. order: the blocks that lie on
    the same rank, for each block; place: where it is among them. ahead: blocks of a rank whose scores or
    weights may live at once. By block, over all heads: the scores and maxima of those `scored` so
    far, the rows that weighed; of early ones the copies `fetched`, the rows that fetched and `used` them.
    """

    aux: int
    kernel: AttentionKernel
    owner: np.ndarray
    holder: np.ndarray
    region: np.ndarray
    region_tag: np.ndarray
    append: np.ndarray
    query: np.ndarray
    order: list[list[int]]
    place: list[int]
    ahead: int
    scored: list[tuple[Lines, Lines]] = field(default_factory=list[tuple[Lines, Lines]])
    weighed: dict[int, np.ndarray] = field(default_factory=dict[int, np.ndarray])
    fetched: dict[int, Lines] = field(default_factory=dict[int, Lines])
    fetches: dict[int, np.ndarray] = field(default_factory=dict[int, np.ndarray])
    used: dict[int, np.ndarray] = field(default_factory=dict[int, np.ndarray])

    @property
    def run(self) -> int:
        """Blocks that a stripe is dealt at a time; of one stripe all."""
        return self.kernel.run // self.kernel.block if self.kernel.stripes > 1 else self.kernel.chunks

    def stripe(self, block: int) -> int:
        """Which stripe holds a block."""
        return block // self.run % self.kernel.stripes

    @property
    def readers(self) -> np.ndarray:
        """Those of the holders, head by head, whose stripes hold a block of this context."""
        used = int(ceil_div(self.kernel.chunks, self.run))
        return self.holder.reshape(-1, self.kernel.stripes)[:, :used].reshape(-1)

    def rank(self, block: int) -> np.ndarray:
        """The rank that holds a block of each head."""
        return self.holder[self.stripe(block) :: self.kernel.stripes]

    def regions(self, block: int) -> slice:
        """Which of the regions hold a block, one of each head."""
        return slice(self.stripe(block), None, self.kernel.stripes)

    def local(self, block: int) -> int:
        """Which block of its region, or of what DDR5 keeps of it, a block is."""
        block -= self.kernel.early if block >= self.kernel.early else 0
        return block // self.run // self.kernel.stripes * self.run + block % self.run

    def before(self, block: int, count: int) -> int:
        """The block that lies this many blocks before another on its rank; -1: none."""
        place = self.place[block] - count
        return self.order[block][place] if place >= 0 else -1

    def find(self, low: Lowering, block: int) -> dict[str, Any]:
        """Where rows find a block of every head: its number in the region, the region or a copy, a plane."""
        mine = self.regions(block)
        pin = (self.place[block] + np.arange(len(self.owner))) % low.chip.planes
        if block in self.fetched:
            copy = self.fetched[block]
            return {"n": self.local(block), "pin": pin, "src2_tag": copy.tag(copy.first)}
        return {
            "n": self.local(block),
            "pin": pin,
            "src2": self.region[mine],
            "src2_tag": self.region_tag[mine],
        }

    def value(self, low: Lowering, dtype: str, lines: int, ranks: Sequence[np.ndarray]) -> Lines:
        """A value of `lines` lines for each head and entry of `ranks`, head by head, one row each."""
        owner = ranks[0] if len(ranks) == 1 else np.stack(ranks, axis=-1).reshape(-1)
        first = np.arange(len(owner)) * lines
        return low.value(dtype, np.repeat(owner, lines), first=first, count=np.full(len(owner), lines))


def holders(low: Lowering, owner: np.ndarray, deal: Deal) -> np.ndarray:
    """The rank of every (head, stripe): of the owner, its own ranks, nearest first, then those beside it."""
    low.kv_owners.append(owner)
    if deal.chips == 1:
        return owner
    owners, slots = np.unique(owner), np.array(deal.slots)
    distance = hops(low.router.rack)
    chips = np.array(low.router.chips[: low.group.ranks])
    out: dict[int, np.ndarray] = {}
    for first, end in zip(owners.tolist(), [*owners[1:].tolist(), low.group.ranks], strict=True):
        own = np.arange(first, end)
        near = own[np.argsort(distance[chips[first], chips[own]], kind="stable")]
        beside = low.group.beside[first] if low.group.beside else ()
        out[first] = np.append(near, np.array(beside, np.int64))[slots]
    return np.concatenate([out[first] for first in owner.tolist()])


def kv_regions(low: Lowering, owner: np.ndarray, words: int) -> np.ndarray:
    """Space-coded first words of KV regions on these ranks, bumped per rank."""
    out = np.empty(len(owner), np.int64)
    for i, rank in enumerate(owner):
        out[i] = (KV << SPACE_SHIFT) | low.kv_words[rank]
        low.kv_words[rank] += words
    return out


def needed(low: Lowering, value: Lines, first: np.ndarray, lines: int, holder: np.ndarray) -> np.ndarray:
    """Need that holders of stripes, head by head, get `lines` lines of their heads, from `first[head]`."""
    need = np.zeros((low.group.keepers, value.lines), bool)
    begin = np.repeat(first, len(holder) // len(first))
    need[holder[:, None], begin[:, None] + np.arange(lines)] = True
    return need


def order(deal: Deal, kernel: AttentionKernel) -> tuple[list[list[int]], list[int]]:
    """For each block those that lie on the same rank, and its place among them; early ones by themselves."""
    run = kernel.run // kernel.block if kernel.stripes > 1 else kernel.chunks
    slots, queues = deal.slots, [list[int]() for _ in range(2 * deal.chips)]
    order, place = list[list[int]](), list[int]()
    for block in range(kernel.chunks):
        mine = queues[slots[block // run % kernel.stripes] + deal.chips * (block < kernel.early)]
        order.append(mine)
        place.append(len(mine))
        mine.append(block)
    return order, place
