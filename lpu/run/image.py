"""The SRAM image: which preloaded values a program's rows can read, one entry each.

Equal values on many chips are kept once. A tile, a scale word or a gain word of any address is one entry, so
rows read what lies at *their* address: two swapped tiles change bits. `lpu/run/fill.py` puts the bytes in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float16, Float32, Float64, Int, Int32, UInt8

from compiler.program.isa import (
    ANGLES,
    F32_LANES,
    FACTOR,
    GAIN,
    SCALE,
    SHIFTED,
    TABLE,
    TILE,
    TILE16,
    TILE_ROWS,
)
from compiler.program.program import LOADS, Loads
from lpu.run.stacks import stacked

LINES = (SCALE, GAIN, SHIFTED, FACTOR, TILE16)  # kinds of which an entry is a line of lanes
Slot = tuple[str, Int[np.ndarray, "_"] | None, Int[np.ndarray, "_"] | None]
"""A tensor's name, and the real row and column of each padded one (None: as they come)."""
Weights = Mapping[str, np.ndarray]


class Image(NamedTuple):
    """Preloaded values, one entry each.

    tiles: e4m3 codes. scales: f32 in value, of an exponent its power of two. columns: the table columns that
    an embedding line gathers (-1: zero). tables: fp16 [vocab, d] each; angles: int32 [positions, 2, head_dim
    / 2] each. shifted: gains over a power of two, factors: those powers in lane 0
    (`models.contract.deferred`). halves: tiles of fp16 weights. stacks: of every line of a stack the tile of
    each expert. The last entry of `gains` and `shifted` is zero, of `columns` -1.
    """

    tiles: UInt8[Array, "tiles 320 80"]
    scales: Float64[Array, "scales 80"]
    gains: Float32[Array, "gains 80"]
    shifted: Float64[Array, "shifted 80"]
    factors: Float64[Array, "factors 80"]
    columns: Int32[Array, "lines 80"]
    tables: tuple[Float16[Array, "vocab d"], ...]
    angles: tuple[Int32[Array, "positions 2 half"], ...]
    halves: Float16[Array, "halves 320 80"]
    stacks: Int32[Array, "lines experts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePlan:
    """What an image holds, before any byte of it is read.

    slots: the distinct ones. wanted: per kind of LINES, and of TILE, int64 [n, 3], in order: slot, first row,
    first column, all padded. gathers: per embedding block its slot, first padded column and lines. tables,
    angles: tensors held whole. stacks: of every line of a stack the tile of each expert. entry, tensor: per
    load its entry (of TABLE and STACK: the first of its lines) and the index of its tensor.
    """

    slots: list[Slot]
    wanted: dict[int, Int[np.ndarray, "_ 3"]]
    gathers: list[tuple[int, int, int]]
    tables: list[str]
    angles: list[str]
    stacks: Int[np.ndarray, "lines experts"]
    entry: Int[np.ndarray, " loads"]
    tensor: Int[np.ndarray, " loads"]

    @property
    def tiles(self) -> int:
        """Distinct weight tiles."""
        return len(self.wanted[TILE])


class LoadedImage(NamedTuple):
    """An image with its plan, and the loads and slots that it was planned for."""

    image: Image
    plan: ImagePlan
    loads: Loads
    slots: list[Slot]


def plan_image(loads: Loads, slots: list[Slot]) -> ImagePlan:
    """What the image of these loads holds."""
    slot, distinct = _distinct(slots)
    entry = np.zeros(len(loads), np.int64)
    tensor = np.zeros(len(loads), np.int64)
    wanted: dict[int, np.ndarray] = {}
    for kind in LINES:
        rows = np.flatnonzero(loads.kind == kind)
        wanted[kind], entry[rows] = _unique(slot[loads.tensor[rows]], loads.k0[rows], loads.n0[rows])
    wanted[TILE], stacks = _tiles(loads, slot, distinct, entry)
    rows = np.flatnonzero(loads.kind == TABLE)
    gathers, entry[rows] = _gathers(loads, rows, slot)
    tables, tensor[rows] = _names(loads, rows, slots)
    rows = np.flatnonzero(loads.kind == ANGLES)
    angles, tensor[rows] = _names(loads, rows, slots)
    return ImagePlan(
        slots=distinct,
        wanted=wanted,
        gathers=gathers,
        tables=tables,
        angles=angles,
        stacks=stacks,
        entry=entry,
        tensor=tensor,
    )


def same_image(loaded: LoadedImage, loads: Loads, slots: list[Slot]) -> bool:
    """Whether other loads put the same values at the same addresses, in the same order, however tagged."""
    said = [name for name in LOADS if name != "tag"]
    columns = [np.array_equal(getattr(loaded.loads, name), getattr(loads, name)) for name in said]
    return all(columns) and _keys(loaded.slots) == _keys(slots)


def tile_bytes(tiles: int) -> int:
    """Host bytes of `tiles` weight tiles."""
    return tiles * TILE_ROWS * F32_LANES


def image_bytes(loads: Loads, slots: list[Slot]) -> int:
    """Host bytes of the weight tiles of an image, equal ones counted once."""
    slot, distinct = _distinct(slots)
    wanted, _ = _tiles(loads, slot, distinct, np.zeros(len(loads), np.int64))
    return tile_bytes(len(wanted))


def _tiles(
    loads: Loads,
    slot: Int[np.ndarray, " slots"],
    distinct: list[Slot],
    entry: Int[np.ndarray, " loads"],
) -> tuple[Int[np.ndarray, "tiles 3"], Int[np.ndarray, "lines experts"]]:
    """(the distinct tiles, those of every line of a stack); `entry` of TILE and STACK loads is filled in."""
    rows, many = np.flatnonzero(loads.kind == TILE), stacked(loads, slot, [rows for _, rows, _ in distinct])
    wanted, number = _unique(
        np.concatenate([slot[loads.tensor[rows]], many.slot]),
        np.concatenate([loads.k0[rows], many.k0]),
        np.concatenate([loads.n0[rows], many.n0]),
    )
    entry[rows], entry[many.rows] = number[: len(rows)], many.first
    return wanted, number[len(rows) :].reshape(many.lines, many.experts)


def _distinct(slots: list[Slot]) -> tuple[Int[np.ndarray, " slots"], list[Slot]]:
    """(index of each slot among those that differ in tensor or maps, those)."""
    index: dict[tuple[str, bytes, bytes], int] = {}
    known: list[Slot] = []
    out = np.zeros(len(slots), np.int64)
    for i, key in enumerate(_keys(slots)):
        if key not in index:
            index[key] = len(known)
            known.append(slots[i])
        out[i] = index[key]
    return out, known


def _keys(slots: list[Slot]) -> list[tuple[str, bytes, bytes]]:
    """Tensor, row map and column map of each slot, to compare."""
    return [
        (name, b"" if rows is None else rows.tobytes(), b"" if columns is None else columns.tobytes())
        for name, rows, columns in slots
    ]


def _unique(
    slot: Int[np.ndarray, " loads"], k0: Int[np.ndarray, " loads"], n0: Int[np.ndarray, " loads"]
) -> tuple[Int[np.ndarray, "entries 3"], Int[np.ndarray, " loads"]]:
    """(distinct triples of slot, first row, first column; entry of each load)."""
    most = np.int64(max(k0.max(initial=0), n0.max(initial=0)) + 1)
    keys, entry = np.unique((slot * most + k0) * most + n0, return_inverse=True)
    return np.stack([keys // most // most, keys // most % most, keys % most], axis=-1), entry


def _gathers(
    loads: Loads, rows: Int[np.ndarray, " some"], slot: Int[np.ndarray, " slots"]
) -> tuple[list[tuple[int, int, int]], Int[np.ndarray, " some"]]:
    """(distinct blocks of embedding lines, first line of each TABLE load)."""
    known: dict[tuple[int, int, int], int] = {}
    entry = np.zeros(len(rows), np.int64)
    lines = 0
    for i, row in enumerate(rows):
        key = (int(slot[loads.tensor[row]]), int(loads.n0[row]), int(loads.lines[row]))
        if key not in known:
            known[key] = lines
            lines += key[2]
        entry[i] = known[key]
    return list(known), entry


def _names(
    loads: Loads, rows: Int[np.ndarray, " some"], slots: list[Slot]
) -> tuple[list[str], Int[np.ndarray, " some"]]:
    """(the distinct tensors that these loads hold whole, index of each load's)."""
    names = [slots[loads.tensor[row]][0] for row in rows]
    distinct = list(dict.fromkeys(names))
    index = {name: i for i, name in enumerate(distinct)}
    return distinct, np.array([index[name] for name in names], np.int64)
