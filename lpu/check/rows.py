"""Rows in portions that numpy works on well: by opcode and kernel, by chip; intervals cut at every end."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from compiler.program.instruction_set import INSTRUCTIONS
from compiler.program.isa import TRANSFER, Columns, Instruction, Kernel, Op, Operand, by_opcode, is_transfer
from compiler.program.ranges import ramp

TIME_BITS = 36  # keys are place << TIME_BITS | cycle and stay below 2^63
CYCLE = (1 << TIME_BITS) - 1
_PIECE = 1 << 15  # rows that are looked at together: what fits the caches of a processor


class Alike(NamedTuple):
    """Rows of one opcode and kernel; where there are many, one of several portions of them."""

    op: int
    kernel: Kernel
    rows: Int[np.ndarray, " rows"]

    @property
    def instruction(self) -> Instruction:
        """What the language says of the opcode."""
        return INSTRUCTIONS[self.op]

    @property
    def operands(self) -> list[Operand]:
        """The operands that rows of the kernel have."""
        return [o for o in self.instruction.operands if o.is_in(self.kernel)]

    @property
    def transfers(self) -> bool:
        """Whether these are transfers."""
        return self.op in (Op.SEND, Op.FORWARD)


def alike(columns: Columns, kernels: tuple[Kernel, ...]) -> list[Alike]:
    """The rows by opcode and kernel; those of one opcode and kernel keep their order."""
    count = max(len(kernels), 1)
    opcodes = sorted(INSTRUCTIONS)
    number = by_opcode([(op, i) for i, op in enumerate(opcodes)], 0)  # without gaps: a shorter sort
    key = number[columns.op] * count + np.where(is_transfer(columns.op), 0, columns.aux)
    order = by_small(key, len(opcodes) * count)
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[len(key) > 0], key[1:] != key[:-1]]))
    out: list[Alike] = []
    for rows in np.split(order, starts[1:]) if len(order) else []:
        op = int(columns.op[rows[0]])
        kernel = TRANSFER if op in (Op.SEND, Op.FORWARD) else kernels[int(columns.aux[rows[0]])]
        out += [Alike(op, kernel, rows[at : at + _PIECE]) for at in range(0, len(rows), _PIECE)]
    return out


def by_small(values: Int[np.ndarray, " entries"], count: int) -> Int[np.ndarray, " entries"]:
    """The stable order of values in 0 .. count-1; numpy sorts 16-bit integers in linear time."""
    return np.argsort(values.astype(np.uint16) if count <= 1 << 16 else values, kind="stable")


class Batches:
    """Entries by chip, in portions of whole chips that fit the caches of a processor.

    work: of each chip, in what the caller counts in; a portion takes more than `most` only for a single chip.
    """

    def __init__(self, work: Int[np.ndarray, " chips"], most: int) -> None:
        before = (np.cumsum(work) - work) // most
        starts = np.flatnonzero(np.diff(before, prepend=-1))
        self.ends = np.concatenate([starts, [len(work)]])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The chips [first, last) of one portion after another."""
        return pairwise(self.ends.tolist())

    def of(self, chip: Int[np.ndarray, " entries"]) -> Iterator[Int[np.ndarray, " some"]]:
        """The entries of one portion after another, in order of chips, of which each entry has one."""
        order = by_small(chip, int(self.ends[-1]))
        ends = np.concatenate([[0], np.cumsum(np.bincount(chip, minlength=self.ends[-1]))])[self.ends]
        return (order[start:stop] for start, stop in pairwise(ends.tolist()))


class Cuts(NamedTuple):
    """Intervals cut at every end of any of them: of each cut its interval, its segment, where it begins."""

    interval: Int[np.ndarray, " cuts"]
    segment: Int[np.ndarray, " cuts"]
    begin: Int[np.ndarray, " cuts"]


def split(start: Int[np.ndarray, " intervals"], stop: Int[np.ndarray, " intervals"], size: int) -> Cuts:
    """Cut the intervals [start, stop) of positions below `size`; two cuts are one segment or disjoint."""
    cut = np.zeros(size + 1, bool)
    cut[start] = True
    cut[stop] = True
    segment_of = np.cumsum(cut, dtype=np.int32)
    first = segment_of[start] - 1
    count = segment_of[stop - 1] - first
    interval = np.repeat(np.arange(len(start)), count)
    segment = first[interval] + ramp(count)
    return Cuts(interval, segment, np.flatnonzero(cut)[segment])
