"""Links: who is wired to whom, over how many lanes, how many cycles away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

NS_PER_SECOND = 10**9


class Wire(NamedTuple):
    """One cable between two chips, both directions. `level` indexes the rack's levels."""

    a: int
    b: int
    lanes: int
    hop_cycles: int
    slot_cycles: int
    level: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Links:
    """Directed links as equally long read-only int64 columns, sorted by (a, b); two per cable.

    hop_cycles: from the last word leaving `a` until it can be read in the SRAM of `b`, deskew margin
    included. slot_cycles: cycles that one lane needs for one word of 320 bytes. index: [chips, chips] ->
    row, or -1.
    """

    a: Int[np.ndarray, " links"]
    b: Int[np.ndarray, " links"]
    lanes: Int[np.ndarray, " links"]
    hop_cycles: Int[np.ndarray, " links"]
    slot_cycles: Int[np.ndarray, " links"]
    level: Int[np.ndarray, " links"]
    index: Int[np.ndarray, "chips chips"]

    def __len__(self) -> int:
        return len(self.a)


def ns_to_cycles(ns: int, clock_hz: int) -> int:
    """The least whole number of cycles that lasts at least `ns` nanoseconds."""
    return -(-ns * clock_hz // NS_PER_SECOND)


def directed(wires: Sequence[Wire], chips: int) -> Links:
    """Both directions of every wire, sorted by (a, b). An impossible wire raises ValueError."""
    seen: set[tuple[int, int]] = set()
    for wire in wires:
        pair = (min(wire.a, wire.b), max(wire.a, wire.b))
        if not (0 <= wire.a < chips and 0 <= wire.b < chips):
            raise ValueError(f"link {wire.a}-{wire.b}: the rack has {chips} chips, numbered 0 to {chips - 1}")
        if wire.a == wire.b:
            raise ValueError(f"link {wire.a}-{wire.b}: joins a chip to itself")
        if pair in seen:
            raise ValueError(f"link {wire.a}-{wire.b}: is there twice; give one link with the lanes of both")
        if wire.lanes < 1:
            raise ValueError(f"link {wire.a}-{wire.b}: has {wire.lanes} lanes, needs at least 1")
        if wire.hop_cycles < 1 or wire.slot_cycles < 1:
            cycles = min(wire.hop_cycles, wire.slot_cycles)
            raise ValueError(f"link {wire.a}-{wire.b}: takes {cycles} cycles, needs at least 1")
        seen.add(pair)
    table = np.array(wires, np.int64).reshape(-1, len(Wire._fields))
    table = np.concatenate([table, table[:, [1, 0, 2, 3, 4, 5]]])
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    index = np.full((chips, chips), -1, np.int64)
    index[table[:, 0], table[:, 1]] = np.arange(len(table))
    columns = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(Wire._fields)}
    columns["index"] = index
    for column in columns.values():
        column.flags.writeable = False
    return Links(**columns)
