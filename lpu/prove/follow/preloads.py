"""What a block's rows read of the weight space: which preloaded values of which tensors."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from compiler.program.isa import (
    ANGLES,
    COLD,
    F32_LANES,
    FACTOR,
    GAIN,
    LOAD_NAMES,
    PAIRS,
    SCALE,
    SHARED,
    SHIFTED,
    SPACE_SHIFT,
    STACKS,
    TABLE,
    TILE,
    TILE16,
    TILE_ROWS,
    WEIGHTS,
)
from compiler.program.program import Block, Loads
from lpu.prove.follow.alike import numbered
from lpu.prove.known import Known
from lpu.prove.lanes import cut
from lpu.prove.lines import HalfRun, Preload, StackRun, TileRun
from lpu.prove.refused import RefusedError, need
from lpu.prove.rule import Preloads

_WORDS = {TILE: F32_LANES, SCALE: 1, GAIN: 1, SHIFTED: 1, FACTOR: 1, TILE16: 2 * F32_LANES}
_MOST_LINES = 1 << 16  # of a table
_ONE_AXIS = (SCALE, GAIN, SHIFTED, FACTOR)
_AXES = {TILE: 2, TABLE: 2, ANGLES: 3, TILE16: 2, **dict.fromkeys(_ONE_AXIS, 1), **dict.fromkeys(STACKS, 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Preloaded values that rows read. run[row]: index of what it reads, -1 for nothing.

    Loads that are one value of one slot, whatever chip and word, have one number: runs are of each index the
    numbers of consecutive loads, first is a load of each number. shared: rank and offset of what is read in
    the shared space, whose run is that of no load.
    """

    run: Int[np.ndarray, " rows"]
    runs: list[tuple[int, ...]]
    first: Int[np.ndarray, " alike"]
    shared: Int[np.ndarray, "shared 2"]


_MATRICES = (2, 3)  # axes of a matrix, and of a stack of them
SHARED_RUN = 0  # the index of what rows read in the shared space


def reading(
    loads: Loads,
    rank: Int[np.ndarray, " readers"],
    address: Int[np.ndarray, " readers"],
    words: Int[np.ndarray, " readers"],
    row: Int[np.ndarray, " readers"],
    rows: int,
) -> Reading:
    """Which loads the rows named by `row` read: `words` words from a space-coded address of their rank on."""
    space = address >> SPACE_SHIFT
    need(bool(((space == WEIGHTS) | (space == SHARED)).all()), "a row reads weights outside the weight space")
    run = np.full(rows, -1)
    common = space == SHARED
    run[row[common]] = SHARED_RUN
    runs: list[tuple[int, ...]] = [()]
    offset = address[common] & ((1 << SPACE_SHIFT) - 1)
    shared = np.unique(np.stack([rank[common], offset], axis=-1), axis=0)
    own = ~common & (words > 0)
    rank, address, words, row = rank[own], address[own], words[own], row[own]
    order = np.lexsort((loads.addr, loads.chip))
    chip, addr, size = loads.chip[order], loads.addr[order], loads.words[order]
    need(bool((loads.addr >= 0).all() and (loads.chip >= 0).all()), "a preloaded value lies nowhere")
    alike, first = _alike(loads)
    if not len(row):
        return Reading(run=run, runs=runs, first=first, shared=shared)
    need(len(order) > 0, "rows read weights, none are preloaded")
    bits = int(max(int(addr.max()), int(address.max()), 1)).bit_length() + 1
    key = chip << bits | addr
    at = np.minimum(np.searchsorted(key, rank << bits | address), len(key) - 1)
    _each(key[at] == (rank << bits | address), row, "reads weights where no preloaded value begins")
    joins = np.append((chip[1:] == chip[:-1]) & (addr[1:] == addr[:-1] + size[:-1]), False)
    taken, left = alike[order[at]], words - size[at]
    number = np.unique(taken, return_inverse=True)[1].reshape(-1)
    count = 1
    while (more := left > 0).any():
        step = at[more] + count - 1
        _each(joins[np.minimum(step, len(joins) - 1)], row[more], "reads weights beyond preloaded values")
        left[more] -= size[step + 1]
        further = alike[order[step + 1]] + 1
        pair = number * (len(first) + 1)
        pair[more] += further
        number = np.unique(pair, return_inverse=True)[1].reshape(-1)
        count += 1
    _each(left == 0, row, "reads a part of a preloaded value")
    _, example, number = np.unique(number, return_index=True, return_inverse=True)
    for i in example.tolist():
        end, start = int(words[i]), int(at[i])
        found: list[int] = []
        while end > 0:
            found.append(int(alike[order[start]]))
            end -= int(size[start])
            start += 1
        runs.append(tuple(found))
    run[row] = number.reshape(-1) + 1
    return Reading(run=run, runs=runs, first=first, shared=shared)


def _each(holds: np.ndarray, row: np.ndarray, otherwise: str) -> None:
    bad = np.flatnonzero(~holds)
    if len(bad):
        need(False, f"row {int(row[bad[0]])} of the block {otherwise}")


def _alike(loads: Loads) -> tuple[Int[np.ndarray, " loads"], Int[np.ndarray, " alike"]]:
    """The number of each load among different ones, and one load of each number."""
    return numbered(loads.kind, loads.tensor, loads.k0, loads.n0, loads.lines, loads.words)


class BoundPreloads:
    """The preloaded values of a block, with its slots bound to terms."""

    def __init__(self, known: Known, block: Block, read: Reading, slots: list[int], shared: int) -> None:
        self._known, self._block, self._read, self._slots, self._shared = known, block, read, slots, shared
        self._numbers: dict[int, int] = {}
        _about(known, block.loads.kind[read.first], block.loads.tensor[read.first], slots)
        kind, slot, k0, n0, lines, words = (
            getattr(block.loads, name)[read.first]
            for name in ("kind", "tensor", "k0", "n0", "lines", "words")
        )
        size = np.array([_WORDS.get(one, 0) for one in range(len(LOAD_NAMES))])[kind]
        bad = (size > 0) & (words != size) | (k0 < 0) | (n0 < 0) | (lines < 0) | (lines > _MOST_LINES)
        need(not bad.any(), "a preloaded value has another size than its kind, or lies outside its tensor")
        tile, table = np.isin(kind, (TILE, *STACKS, TILE16)), np.isin(kind, (TABLE, *STACKS))
        wide = np.where(table, F32_LANES * lines, np.where(kind == ANGLES, 0, F32_LANES))
        self._kind, self._tensor = kind.tolist(), np.array([*slots, -1])[slot].tolist()
        self._lines = np.where(table, lines, 0).tolist()
        self._across = self._cuts(slot, n0, wide, 1)
        self._down = self._cuts(slot, k0, np.where(tile, TILE_ROWS, 0), 0)
        for load, tensor in enumerate(self._tensor):
            if known.pieces and tensor in known.pieces:
                self._tensor[load], self._across[load] = _in_piece(known, tensor, self._across[load])

    def number(self, run: int) -> int:
        """The number, in `known.things`, of the preloaded values of a run."""
        if run not in self._numbers:
            self._numbers[run] = self._known.number(self._run(run))
        return self._numbers[run]

    def _run(self, run: int) -> Preloads:
        if run == SHARED_RUN:
            return (Preload(ANGLES, self._shared, -1, 0),)
        loads = self._read.runs[run]
        kind = self._kind[loads[0]]
        if kind in STACKS:
            return self._stack(loads)
        if kind == TILE16:
            return self._halves(loads)
        if kind != TILE:
            return tuple([self._one(one) for one in loads])
        rows = self._down[loads[0]]
        for one in loads:
            if self._kind[one] != TILE or self._down[one] != rows:
                raise RefusedError("reads tiles of other kinds or rows together")
        return TileRun(TILE, rows, tuple([(self._tensor[one], self._across[one]) for one in loads]))

    def _stack(self, loads: tuple[int, ...]) -> StackRun:
        """One stack: tiles of some experts of its tensor, or halves; rows name those of the first of them."""
        (load, *more), known = loads, self._known
        tensor, lines = self._tensor[load], self._lines[load]
        need(not more, "reads several stacks at once")
        experts, depth, _ = known.terms.shape(tensor)
        words = int(self._block.loads.words[self._read.first[load]])
        kind = self._kind[load]
        count, rest = (words, 0) if kind == COLD else divmod(words, max(F32_LANES * lines, 1))
        count *= 2 if kind == PAIRS else 1
        rows = known.lanes.all[self._down[load]]
        first = int(rows.max(initial=-1)) // depth
        need(count > 0 and not rest, f"a stack of {words} words is not of whole experts")
        there = f"a stack of {count} experts from {first} on, of {experts}"
        need(first >= 0 and first + count <= experts, there)
        need(bool((rows[rows >= 0] // depth == first).all()), "a stack names rows of several experts")
        down = known.lanes.number(np.where(rows < 0, -1, rows - first * depth))
        across = known.lanes.pieces((self._across[load],), F32_LANES)
        return StackRun(kind, down, tuple([(tensor, one) for one in across]), first, count)

    def _halves(self, loads: tuple[int, ...]) -> HalfRun:
        """Tiles of one tensor and of the same columns, one below the other."""
        tensor, across = self._tensor[loads[0]], self._across[loads[0]]
        for one in loads:
            if (self._kind[one], self._tensor[one], self._across[one]) != (TILE16, tensor, across):
                raise RefusedError("reads fp16 tiles of other columns together")
        return HalfRun(TILE16, tensor, across, tuple([self._down[one] for one in loads]))

    def _one(self, load: int) -> Preload:
        return Preload(self._kind[load], self._tensor[load], self._across[load], self._lines[load])

    def _cuts(self, slot: np.ndarray, first: np.ndarray, count: np.ndarray, axis: int) -> list[int]:
        """The number of the part of its slot's map that each value takes, rows (axis 0) or columns."""
        index, example = numbered(slot, first, count)
        found: list[int] = []
        for one in example.tolist():
            which, begin, size = int(slot[one]), int(first[one]), int(count[one])
            if size == 0:
                found.append(-1)
                continue
            number = self._block.slots[which][axis]
            entries = None if number < 0 else self._block.maps[number]
            length = self._known.terms.shape(self._slots[which])[-1 if axis else -2]
            found.append(self._known.lanes.number(cut(entries, begin, size, length)))
        return np.array(found, np.int64)[index].tolist() if found else []


def _in_piece(known: Known, tensor: int, columns: int) -> tuple[int, int]:
    """The part of a tensor in which these columns lie, and which of its own they are; else the whole."""
    entries = known.lanes.all[columns]
    real = entries[entries >= 0]
    for start, count, piece in known.pieces[tensor]:
        if len(real) and start <= int(real.min()) and int(real.max()) < start + count:
            return piece, known.lanes.number(np.where(entries < 0, -1, entries - start))
    return tensor, columns


def _about(known: Known, kind: np.ndarray, slot: np.ndarray, slots: list[int]) -> None:
    """Every value is of a kind, and of a tensor that has as many axes."""
    for one, which in set(zip(kind.tolist(), slot.tolist(), strict=True)):
        need(one in _AXES, f"a preloaded value is of kind {one}")
        need(0 <= which < len(slots), f"a preloaded value is of slot {which} of {len(slots)}")
        axes, name = len(known.terms.shape(slots[which])), known.show(slots[which])
        need(axes == _AXES[one], f"{name} has {axes} axes, its preloaded {LOAD_NAMES[one]} {_AXES[one]}")


def check_maps(block: Block, shapes: Mapping[int, tuple[int, ...]], names: Mapping[int, str]) -> None:
    """Every slot's maps exist and name indices of its tensor, none twice, whether rows read them or not."""
    for slot, (rows, columns) in enumerate(block.slots):
        shape = shapes[slot]
        wide = shape[0] * shape[-1] if len(shape) == 2 else shape[-1]  # of a matrix of each head: theirs
        deep = shape[-2] if len(shape) in _MATRICES else 0
        axes = {"row": (rows, deep * shape[0] if len(shape) > 2 else deep), "column": (columns, wide)}
        for what, (index, size) in axes.items():
            need(
                -1 <= index < len(block.maps),
                f"the {what} map of {names[slot]} is number {index}, the block has {len(block.maps)}",
            )
            if index < 0:
                continue
            entries = block.maps[index]
            real = np.sort(entries[entries >= 0])
            need(
                bool((entries >= -1).all()) and (not len(real) or int(real[-1]) < size),
                f"the {what} map of {names[slot]} leaves 0 .. {size - 1}",
            )
            need(
                not bool((real[1:] == real[:-1]).any()),
                f"the {what} map of {names[slot]} names an index twice",
            )
    loads = block.loads
    count = len(block.slots)
    need(
        bool(((loads.tensor >= 0) & (loads.tensor < count)).all()),
        f"a preloaded value is of none of the {count} slots of the block",
    )
