"""Products that every rank computes by itself, where all of the result is read on each of them.

The matrix is then preloaded on each, and the exchange between product and norm is left out. So the queries'
and keys' latents of a layer cost a chip some hundred cycles of its planes instead of a hop.
"""

import numpy as np
from jaxtyping import Bool

from compiler.graph.graph import Node
from compiler.lower.collective import Move, arrival
from compiler.lower.context import Lowering
from compiler.lower.layout import Demand, Lines
from compiler.lower.rule import AS_RESULT, Handed
from compiler.program.isa import F32_LANES, TILE_ROWS, ceil_div


def copied(low: Lowering, node: Node, source: Lines) -> np.ndarray | None:
    """The ranks that each compute all of a product, if that is sooner than to share it and exchange it.

    By the rows of a decode step: a prefill program has the same image and must choose alike.
    """
    active = _reading(low, node.outputs[0]) if low.group.k_parts == 1 and low.by_rows else None
    if active is None:
        return None
    ranks = np.flatnonzero(active)
    if len(ranks) < 2 or (active & ~low.multipliers(node.inputs[0].value)).any():
        return None  # its input does not lie everywhere
    (piece,) = low.demands.pieces(node.outputs[0])
    owner = piece.owners(low.group.ranks)
    tiles = len(owner) * int(ceil_div(source.lines, 2))
    alone = _cycles(low, tiles)
    shared = _cycles(low, tiles * int(np.bincount(owner).max()) // len(owner))
    return ranks if alone < shared + arrival(low, _moves(owner, ranks, low.cached)) else None


def _reading(low: Lowering, value: int) -> Bool[np.ndarray, " ranks"] | None:
    """The ranks on which all of a value is read, itself or after rows that keep its segments."""
    demands = low.demands
    readers = demands.readers(value)
    if len(readers) != 1:
        return None
    reader, operand = readers[0]
    rule = demands.rule(reader)
    if rule.handed(demands, reader) is Handed.WHOLE:
        return low.multipliers(reader.outputs[0])
    if operand in rule.copied:
        columns = rule.wants(demands, reader, 0) or reader.inputs[0].width
        heads = Demand(reader.inputs[0], columns, even=rule.even).owners(low.group.ranks)
        return np.isin(np.arange(low.group.ranks), heads)
    keeps = rule.wants(demands, reader, operand) == AS_RESULT and operand == 0
    return _reading(low, reader.outputs[0]) if keeps else None


def _cycles(low: Lowering, tiles: int) -> int:
    """Cycles that the planes of one chip take to install this many tiles of 80 columns."""
    rate = low.chip.plane_bytes_per_cycle * low.chip.planes
    return int(ceil_div(TILE_ROWS * F32_LANES * tiles, rate))


def _moves(owner: np.ndarray, ranks: np.ndarray, rows: int) -> list[Move]:
    """The f32 lines of each owner to all ranks."""
    words = np.bincount(owner) * rows
    return [
        (rank, tuple(int(one) for one in ranks if one != rank), int(words[rank]))
        for rank in np.flatnonzero(words).tolist()
    ]
