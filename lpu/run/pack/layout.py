"""What a packed program is: the layout that XLA compiles for, and the tables that are its data."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from compiler.program.isa import F16_LANES, F32_LANES
from lpu.run.clips import Made
from lpu.run.ops.items import Compute
from models.contract.formats import F16, F32, F64

Counts = tuple[int, int, int]
"""Rows of each pool, in the order of `Pool`."""


@dataclass(frozen=True, slots=True)
class KernelKind:
    """A kernel with its static parameters, table width, items per step, and rows per item in each pool."""

    kernel: Compute
    params: Hashable
    width: int
    batch: int
    rows: Counts


@dataclass(frozen=True, slots=True)
class StepLayout:
    """What a compiled executor depends on: kinds, rows per step and in all, lengths of the tables.

    batch: rows that a step takes, in equal runs of `sequences`.
    """

    kinds: tuple[KernelKind, ...]
    block: Counts
    pools: Counts
    batch: int
    sequences: int
    vocab: int

    def pool_shapes(self, rows: Counts) -> list[tuple[tuple[int, ...], Any]]:
        """(shape, dtype) of pools, or blocks of them, with these rows."""
        lanes = (
            ((self.batch, F16_LANES), F16),
            ((self.batch, F32_LANES), F32),
            ((2, self.batch, F32_LANES), F64),
        )
        return [((count, *shape), dtype) for count, (shape, dtype) in zip(rows, lanes, strict=True)]

    @property
    def pool_bytes(self) -> int:
        """Host bytes of all lines that a step computes."""
        shapes = self.pool_shapes(self.pools)
        return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in shapes)


class StepTables(NamedTuple):
    """A packed program, on the host or the device.

    Of each step: its kind, where its items begin in `table`, its first row in each pool. logits, token: pool
    rows of the result. Of each KV store: pool rows of the lines that a region appends to keys and to values,
    and (stripe, stripes, run) that it is `dealt`. Of each store of states: the first pool row of each line.
    slots: the pool row of a slot of each table that may not suffice.
    """

    kind: Int32[np.ndarray, " steps"]
    offset: Int32[np.ndarray, " steps"]
    rows: Int32[np.ndarray, "steps 3"]
    table: Int32[np.ndarray, " entries"]
    logits: Int32[np.ndarray, " lines"]
    token: Int32[np.ndarray, ""]
    keys: tuple[Int32[np.ndarray, "regions lines"], ...]
    values: tuple[Int32[np.ndarray, "regions lines"], ...]
    dealt: tuple[Int32[np.ndarray, "regions 3"], ...]
    states: tuple[Int32[np.ndarray, " lines"], ...] = ()
    slots: Int32[np.ndarray, " tables"] = np.zeros(0, np.int32)


class Packed(NamedTuple):
    """The executor's program and what it counts: items per kernel after merging equal ones, steps, levels.

    where: the pool row of every written line. made: what leaves each fp16 row.
    counting: the row of the program that makes each of the tables' `slots`.
    """

    layout: StepLayout
    tables: StepTables
    counts: dict[str, int]
    where: Int[np.ndarray, " lines"]
    made: Made
    counting: Int[np.ndarray, " tables"]


class Carried(NamedTuple):
    """Lines that are there before the first step: which, in which pool row, how many rows of each pool."""

    lines: Int[np.ndarray, " carried"]
    rows: Int[np.ndarray, " carried"]
    counts: Counts


SMALL = 1024
NOTHING = Carried(np.zeros(0, np.int64), np.zeros(0, np.int64), (0, 0, 0))


def rounded_up(size: int) -> int:
    """Steps or pool rows rounded up: few to a power of two, many by an eighth at most.

    Programs of nearly one size then share one executable.
    """
    step = 1 << max((size - 1).bit_length() - (0 if size <= SMALL else 3), 0)
    return -(-size // step) * step
