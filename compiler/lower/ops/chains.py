"""Chains of products: how columns are cut into tiles, and which accumulator each chain of products takes."""

import numpy as np
from jaxtyping import Int

from compiler.lower.context import Lowering
from compiler.program.instructions.matmul import WriteBackKernel
from compiler.program.isa import ceil_div


def tile_cut(lines: int, planes: int, rows: int) -> np.ndarray:
    """Widths (1..4 lines) of the column tiles that `lines` output lines are cut into, evenly over the planes.

    A tile narrower than `rows` lines takes no less time than `rows` cycles, so wide batches use wide tiles.
    `rows` are those of a decode step in a prefill program too: both read the same preloaded tiles.
    """
    least = int(ceil_div(lines, 4))
    most = int(ceil_div(lines, min(4, rows)))
    count = min(most, int(ceil_div(least, planes)) * planes)
    cuts = np.arange(count + 1) * lines // count
    return np.diff(cuts)


def column_tiles(low: Lowering, owner: np.ndarray, planes: int) -> tuple[np.ndarray, np.ndarray]:
    """(first line, lines) of each column tile: the lines of one owner, cut by `tile_cut`."""
    runs = np.flatnonzero(np.diff(owner, prepend=-1))
    sizes = np.diff(np.append(runs, len(owner)))
    widths = [tile_cut(int(size), planes, low.cached) for size in sizes]
    first = [run + np.cumsum(width) - width for run, width in zip(runs, widths, strict=True)]
    return np.concatenate(first), np.concatenate(widths)


def turns(low: Lowering, rank: np.ndarray) -> np.ndarray:
    """The turn of each chain on its rank: planes first, then accumulators; a matmul begins at plane 0."""
    order = np.argsort(rank, kind="stable")
    turn = np.empty_like(rank)
    turn[order] = np.arange(len(rank)) - np.searchsorted(rank[order], rank[order])
    turn += (ceil_div(low.turns, low.chip.planes) * low.chip.planes)[rank]
    np.maximum.at(low.turns, rank, turn + 1)
    return turn


def even_turns(
    low: Lowering, rank: np.ndarray, width: np.ndarray, load: Int[np.ndarray, "ranks planes"]
) -> np.ndarray:
    """As `turns`, but each chain takes the plane of its rank with the fewest lines so far, wide ones first.

    width: lines of each chain. load: lines by rank and plane, which these are added to.
    """
    planes = low.chip.planes
    begin = ceil_div(low.turns, planes) * planes
    used, turn = np.zeros_like(load), np.empty_like(rank)
    for chain in np.argsort(-width, kind="stable").tolist():
        at = int(rank[chain])
        plane = int(load[at].argmin())
        turn[chain] = begin[at] + used[at, plane] * planes + plane
        used[at, plane] += 1
        load[at, plane] += width[chain]
        low.turns[at] = max(low.turns[at], turn[chain] + 1)
    return turn


def emptied_by(low: Lowering, rank: np.ndarray, place: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The write-back that empties the accumulator before each chain, of this matmul or an earlier, or -1.

    rank, place: of each chain; last: its own write-back.
    """
    key = rank * low.drains.shape[1] + place
    order = np.argsort(key, kind="stable")
    first = np.diff(key[order], prepend=-1) != 0
    emptied = np.empty_like(last)
    emptied[order] = np.where(first, low.drains.reshape(-1)[key[order]], np.roll(last[order], 1))
    low.drains.reshape(-1)[key[order][np.roll(first, -1)]] = last[order][np.roll(first, -1)]
    return emptied


def drain_kernels(
    low: Lowering, products: np.ndarray, *, wide: bool, normed: bool, part: bool = False
) -> np.ndarray:
    """The kernel of each write-back, by the products that it closes."""
    sizes, which = np.unique(products, return_inverse=True)
    kernels = [
        low.kernels.index(WriteBackKernel(wide=wide, products=int(size), normed=normed, part=part))
        for size in sizes
    ]
    return np.array(kernels, np.int64)[which]
