"""Stacks of experts in an image: which tile each expert has at a place, and the rows of a whole tensor.

A tensor [experts, k, n] is read as a matrix of experts x k rows. A STACK load names rows and columns of its
first expert; the padded rows of the e-th after it lie `stride` e further.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.isa import COLD, F32_LANES, PAIRS, STACKS, TILE_ROWS, ceil_div
from compiler.program.program import Loads
from compiler.program.ranges import ramp

Map = Int[np.ndarray, "_"] | None


class Stacked(NamedTuple):
    """The tiles of stacks, and where each stack's begin.

    rows: the STACK loads. slot, k0, n0: of every tile, of each line of a stack those of all experts. first:
    of each load its first line; lines: of all stacks. experts: tiles of a line.
    """

    rows: Int[np.ndarray, " loads"]
    slot: Int[np.ndarray, " tiles"]
    k0: Int[np.ndarray, " tiles"]
    n0: Int[np.ndarray, " tiles"]
    first: Int[np.ndarray, " loads"]
    lines: int
    experts: int


def stride_of(rows: Map) -> int:
    """Padded rows of one expert: a tile may begin in the middle of its last one."""
    return 0 if rows is None else int(ceil_div(len(rows), TILE_ROWS) + 1) * TILE_ROWS


def stacked(loads: Loads, slot: Int[np.ndarray, " slots"], maps: Sequence[Map]) -> Stacked:
    """The tiles of the STACK loads, equal loads once. slot: of each tensor number; maps: row maps by slot.

    Tensors of one program have as many experts each; of others the rest is tile 0 of the stack.
    """
    rows = np.flatnonzero(np.isin(loads.kind, STACKS))
    lines, own = loads.lines[rows], slot[loads.tensor[rows]]
    kind, words = loads.kind[rows], loads.words[rows]
    tiles = words // np.maximum(F32_LANES * lines, 1) * np.where(kind == PAIRS, 2, 1)
    size = np.where(kind == COLD, words, tiles)
    keys = np.stack([own, loads.k0[rows], loads.n0[rows], lines, size], axis=-1)
    distinct, number = np.unique(keys, axis=0, return_inverse=True)
    begin = np.cumsum(distinct[:, 3]) - distinct[:, 3]
    each = np.repeat(np.arange(len(distinct)), distinct[:, 3])  # of every line its stack
    across = ramp(distinct[:, 3])
    experts = int(size.max(initial=1))
    strides = np.array([stride_of(one) for one in maps] or [0])
    expert = np.minimum(np.arange(experts), distinct[each, 4][:, None] - 1)
    return Stacked(
        rows=rows,
        slot=np.repeat(distinct[each, 0], experts),
        k0=(distinct[each, 1][:, None] + expert * strides[distinct[each, 0]][:, None]).reshape(-1),
        n0=np.repeat(distinct[each, 2] + across * F32_LANES, experts),
        first=begin[number.reshape(-1)],
        lines=len(each),
        experts=experts,
    )


def stack_rows(rows: Map, experts: int, depth: int) -> Int[np.ndarray, " rows"]:
    """The row of experts x depth at every padded row of all experts, -1 for none."""
    assert rows is not None, "a stack has a row map"
    own = np.full(stride_of(rows), -1)
    own[: len(rows)] = rows
    every = np.where(own >= 0, own + depth * np.arange(experts)[:, None], -1)
    return np.where(every < experts * depth, every, -1).reshape(-1)
