"""Who keeps the context of a KV head: the ranks of its stripes, their regions, the order of their blocks."""

import numpy as np

from compiler.lower.context import Lowering
from compiler.lower.layout import Deal, Lines
from compiler.program.instructions.attention import AttentionKernel
from compiler.program.isa import KV, SPACE_SHIFT
from fabric.paths import hops


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
    """For each block those that lie on the same rank, and its place among them."""
    run = kernel.run // kernel.block if kernel.stripes > 1 else kernel.chunks
    slots, queues = deal.slots, [list[int]() for _ in range(deal.chips)]
    order, place = list[list[int]](), list[int]()
    for block in range(kernel.chunks):
        mine = queues[slots[block // run % kernel.stripes]]
        order.append(mine)
        place.append(len(mine))
        mine.append(block)
    return order, place
