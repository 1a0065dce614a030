"""Products that every rank computes by itself, where a norm takes all of the result on each of them.

The matrix is then preloaded on each, and the exchange between product and norm is left out. So the queries'
and keys' latents of a layer cost a chip some hundred cycles of its planes instead of a hop.
"""

import numpy as np

from compiler.graph.graph import Node
from compiler.lower.collective import Move, arrival
from compiler.lower.context import Lowering
from compiler.lower.layout import Lines
from compiler.program.isa import F32_LANES, TILE_ROWS, ceil_div

NO_RANK = -1  # who owns the lines of what every rank computes by itself


def copied(low: Lowering, node: Node, source: Lines) -> np.ndarray | None:
    """The ranks that each compute all of a product, if that is sooner than to share it and exchange it.

    By the rows of a decode step: a prefill program has the same image and must choose alike.
    """
    readers = low.demands.readers(node.outputs[0])
    if low.group.k_parts > 1 or not low.by_rows or len(readers) != 1:
        return None
    active = low.multipliers(readers[0][0].outputs[0])
    ranks = np.flatnonzero(active)
    if len(ranks) < 2 or (active & ~low.multipliers(node.inputs[0].value)).any():
        return None  # its input does not lie everywhere
    (piece,) = low.demands.pieces(node.outputs[0])
    owner = piece.owners(low.group.ranks)
    tiles = len(owner) * int(ceil_div(source.lines, 2))
    alone = _cycles(low, tiles)
    shared = _cycles(low, tiles * int(np.bincount(owner).max()) // len(owner))
    return ranks if alone < shared + arrival(low, _moves(owner, ranks, low.cached)) else None


def _cycles(low: Lowering, tiles: int) -> int:
    """Cycles that the planes of one chip take to install so many tiles of 80 columns."""
    rate = low.chip.plane_bytes_per_cycle * low.chip.planes
    return int(ceil_div(TILE_ROWS * F32_LANES * tiles, rate))


def _moves(owner: np.ndarray, ranks: np.ndarray, rows: int) -> list[Move]:
    """The f32 lines of each owner to all ranks."""
    words = np.bincount(owner) * rows
    return [
        (rank, tuple(int(one) for one in ranks if one != rank), int(words[rank]))
        for rank in np.flatnonzero(words).tolist()
    ]
