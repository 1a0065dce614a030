"""The compiled program: blocks of instruction rows, the calls that place them, preloads, the manifest.

A *block* is a scheduled piece of the model (an attention or FFN block on one group of chips) that many calls
share. Its rows name chips by rank in the group, addresses by space and offset (`space << 40 | offset`),
cycles from 0. A *call* gives the ranks their chips, the spaces their bases, the block its cycle. Expansion is
exact.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from compiler.program.isa import (
    COLUMNS,
    KV,
    OPERANDS,
    SHARED,
    SPACE_SHIFT,
    TAG_SHIFT,
    TAGS,
    WEIGHTS,
    Columns,
)
from compiler.program.manifest import Manifest

LOADS = ("chip", "addr", "words", "kind", "tensor", "k0", "n0", "lines", "tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What lies in the weight space before the first cycle: one row per preloaded value, int64 columns.

    TILE: 80 words, one per output column n0 .. n0+79, each 320 e4m3 lanes of input rows k0 .. k0+319.
    SCALE: one word, the f32 scales 2^e of columns n0 .. n0+79. GAIN: one word, f32 gains of n0 .. n0+79.
    SHIFTED: the same over the power of two of a deferred norm. FACTOR: that power
    (models.contract.deferred). TABLE: the embedding, per vocabulary row the fp16 lanes n0 ..
    n0+80*lines-1 in ceil(lines/2) words. STACK: of every expert of a tensor [experts, k, n] a TILE of
    `lines` times 80 columns, one after another; k0 is a row of each expert. PAIRS: the same of tiles of
    160 rows, two experts in the words of one. COLD: of each of some experts a word that says where in DDR5
    its tile lies, as for STACK. TILE16: 160 words, a TILE of fp16 weights, two words a
    column. ANGLES: the RoPE table, per position cos then sin (Q1.15, head_dim/2 each, two bytes) in whole
    words. k0 and n0 are *padded* positions: the maps of the slot say which row or column each is (-1:
    zero).
    """

    chip: Int[np.ndarray, " loads"]
    addr: Int[np.ndarray, " loads"]
    words: Int[np.ndarray, " loads"]
    kind: Int[np.ndarray, " loads"]
    tensor: Int[np.ndarray, " loads"]
    k0: Int[np.ndarray, " loads"]
    n0: Int[np.ndarray, " loads"]
    lines: Int[np.ndarray, " loads"]
    tag: Int[np.ndarray, " loads"]

    def __len__(self) -> int:
        return len(self.chip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A scheduled block in rank, offset and relative-cycle form; `columns` and `cycles` per context bucket.

    `slots[tensor]` is (row map, column map), indices into `maps` (-1: none).
    """

    name: str
    columns: dict[int, Columns]
    cycles: dict[int, int]
    loads: Loads
    maps: tuple[np.ndarray, ...]
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One use of a block: its chips by rank, bases of the weight and KV spaces by rank, cycle per bucket."""

    block: int
    name: str
    chips: tuple[int, ...]
    weight_base: tuple[int, ...]
    kv_base: tuple[int, ...]
    shared_base: tuple[int, ...]
    tag: int
    tensors: tuple[str, ...]
    base: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Program:
    """What compile returns and the only thing that lpu sees."""

    manifest: Manifest
    blocks: tuple[Block, ...]
    calls: tuple[Call, ...]

    def __repr__(self) -> str:
        return str(self).splitlines()[0]

    def __str__(self) -> str:
        manifest = self.manifest
        lines = [
            f"program of kind {manifest.kind} for {manifest.rack}, {len(self.blocks)} blocks, "
            f"{len(self.calls)} calls, digest {manifest.digest}"
        ]
        for context in manifest.contexts:
            lines.append(f"  context {context}: {self.rows(context)} rows, {manifest.cycles[context]} cycles")
        names = (f"{call.name:<24} block {call.block:3}, base {call.base}" for call in self.calls)
        more = [f"  ... and {len(self.calls) - 36} more"] if len(self.calls) > 36 else []
        return "\n".join([*lines, *(f"  {name}" for name, _ in zip(names, range(36), strict=False)), *more])

    def rows(self, context: int) -> int:
        """How many instructions a step has."""
        return sum(len(self.blocks[call.block].columns[context]) for call in self.calls)

    def expand(self, context: int) -> Columns:
        """Every instruction of one step in call order, with chips, SRAM words and cycles of the rack."""
        rows = self.rows(context)
        parts = (self.expand_call(call, context) for call in self.calls)
        return Columns(**_joined(COLUMNS + TAGS, parts, rows))

    def expand_call(self, call: Call, context: int, some: Int[np.ndarray, " some"] | None = None) -> Columns:
        """The instructions of one call, or those of these rows of its block."""
        rows = self.blocks[call.block].columns[context]
        rows = rows if some is None else rows.take(some)
        chips = np.array(call.chips)
        bases = self._bases(call)
        out = {name: getattr(rows, name) for name in COLUMNS + TAGS}
        out["t0"] = rows.t0 + call.base[context]
        out["t1"] = rows.t1 + call.base[context]
        for name in OPERANDS:
            out[name] = _resolve(getattr(rows, name), rows.chip, bases)
            tag = getattr(rows, name + "_tag")
            out[name + "_tag"] = np.where(tag < 0, tag, tag + (call.tag << TAG_SHIFT))
        out["chip"] = chips[rows.chip]
        out["peer"] = np.where(rows.peer < 0, -1, chips[np.maximum(rows.peer, 0)])
        return Columns(**out)

    def _bases(self, call: Call) -> np.ndarray:
        """Word address where each space begins, [space, rank]; the transient space begins at 0."""
        bases = np.zeros((4, len(call.chips)), np.int64)
        bases[WEIGHTS], bases[KV], bases[SHARED] = call.weight_base, call.kv_base, call.shared_base
        return bases

    def loads(self) -> Loads:
        """Every preloaded value with its chip and SRAM word; `tensor` indexes `slot_names`."""
        count = sum(len(self.blocks[call.block].loads) for call in self.calls)
        return Loads(**_joined(LOADS, self.loads_by_call(), count))

    def loads_by_call(self) -> Iterator[Loads]:
        """The preloaded values of one call after another: together they are `loads`."""
        first = 0
        for call in self.calls:
            yield self.placed(call, self.blocks[call.block].loads, first)
            first += len(call.tensors)

    def placed(self, call: Call, loads: Loads, first: int = 0) -> Loads:
        """Preloaded values of a call's block where the call places them; its tensors count from `first`."""
        out = {name: getattr(loads, name) for name in LOADS}
        out["addr"] = _resolve(loads.addr, loads.chip, self._bases(call))
        out["chip"] = np.array(call.chips)[loads.chip]
        out["tensor"] = loads.tensor + first
        out["tag"] = loads.tag + (call.tag << TAG_SHIFT)
        return Loads(**out)

    def slots(self) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
        """(tensor name, row map, column map) of every slot, in the order that `loads` numbers them."""
        out: list[tuple[str, np.ndarray | None, np.ndarray | None]] = []
        for call in self.calls:
            block = self.blocks[call.block]
            for name, (row, col) in zip(call.tensors, block.slots, strict=True):
                out.append((name, None if row < 0 else block.maps[row], None if col < 0 else block.maps[col]))
        return out


def _joined(names: Sequence[str], parts: Iterable[Any], rows: int) -> dict[str, np.ndarray]:
    """The columns of all parts one after another, of this many rows: no two copies of the whole."""
    out = {name: np.empty(rows, np.int64) for name in names}
    stop = 0
    for part in parts:
        start, stop = stop, stop + len(part)
        for name, column in out.items():
            column[start:stop] = getattr(part, name)
    return out


def _resolve(operand: np.ndarray, rank: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """Space-coded offsets to SRAM words; -1 and accumulators (small numbers in space 0) stay as they are."""
    space = operand >> SPACE_SHIFT
    offset = operand & ((1 << SPACE_SHIFT) - 1)
    return np.where(operand < 0, operand, offset + bases[np.maximum(space, 0), rank])
