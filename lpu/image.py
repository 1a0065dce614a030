"""The SRAM image: what the loads of a program put there, as arrays that the kernels index.

Equal values on many chips are kept once. A tile, a scale word or a gain word of any address is one entry, so
rows read what lies at *their* address: two swapped tiles change bits.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from compiler.isa import F32_LANES, TILE_ROWS, ceil_div
from compiler.program import ANGLES, GAIN, LOADS, SCALE, TABLE, TILE, Loads

Slot = tuple[str, np.ndarray | None, np.ndarray | None]
Weights = Mapping[str, np.ndarray]


class MachineError(Exception):
    """The program, its weights or its inputs do not fit together; one line."""


class Image(NamedTuple):
    """Preloaded values, one entry each.

    tiles [n, 320, 80] e4m3 codes; exponents [n, 80] int32; gains [n, 80] f32; columns [n, 80] int32, the
    table columns that an embedding line gathers (-1: zero); tables, fp16 [vocab, d] each; angles, int32
    [positions, 2, head_dim / 2] each. The last entry of `gains` is zero, of `columns` -1.
    """

    tiles: Array
    exponents: Array
    gains: Array
    columns: Array
    tables: tuple[Array, ...]
    angles: tuple[Array, ...]


class Placed(NamedTuple):
    """The image, and per load its entry (of TABLE: the first of its lines) and the index of its tensor."""

    image: Image
    entry: np.ndarray
    tensor: np.ndarray
    loads: Loads
    slots: list[Slot]


def place(loads: Loads, slots: list[Slot], weights: Weights) -> Placed:
    """The image of a program's loads; raises MachineError for a tensor that does not fit."""
    slot, distinct = _distinct(slots)
    entry = np.zeros(len(loads), np.int64)
    tensor = np.zeros(len(loads), np.int64)
    stores: dict[int, np.ndarray] = {}
    for kind, fill in ((TILE, _tiles), (SCALE, _words), (GAIN, _words)):
        rows = np.flatnonzero(loads.kind == kind)
        wanted, entry[rows] = _unique(slot[loads.tensor[rows]], loads.k0[rows], loads.n0[rows])
        stores[kind] = fill(wanted, distinct, weights, np.int32 if kind == SCALE else np.float32)
    rows = np.flatnonzero(loads.kind == TABLE)
    columns, entry[rows] = _embedding(loads, rows, slots, weights)
    tables, tensor[rows] = _whole(loads, rows, slots, weights, np.float16)
    rows = np.flatnonzero(loads.kind == ANGLES)
    angles, tensor[rows] = _whole(loads, rows, slots, weights, np.int32)
    image = Image(
        tiles=jax.device_put(stores[TILE]),
        exponents=jax.device_put(stores[SCALE]),
        gains=jax.device_put(stores[GAIN]),
        columns=jax.device_put(columns),
        tables=tables,
        angles=angles,
    )
    return Placed(image, entry, tensor, loads, slots)


def same_image(placed: Placed, loads: Loads, slots: list[Slot]) -> bool:
    """Whether other loads put the same values at the same addresses, in the same order."""
    columns = [np.array_equal(getattr(placed.loads, name), getattr(loads, name)) for name in LOADS]
    return all(columns) and _keys(placed.slots) == _keys(slots)


def image_bytes(loads: Loads, slots: list[Slot]) -> int:
    """Host bytes of the weight tiles of an image, equal ones counted once."""
    slot, _ = _distinct(slots)
    rows = np.flatnonzero(loads.kind == TILE)
    wanted, _ = _unique(slot[loads.tensor[rows]], loads.k0[rows], loads.n0[rows])
    return len(wanted) * TILE_ROWS * F32_LANES


def _distinct(slots: list[Slot]) -> tuple[np.ndarray, list[Slot]]:
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


def _unique(slot: np.ndarray, k0: np.ndarray, n0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distinct [n, 3] of slot, first row, first column; entry of each)."""
    most = np.int64(max(k0.max(initial=0), n0.max(initial=0)) + 1)
    keys, entry = np.unique((slot * most + k0) * most + n0, return_inverse=True)
    return np.stack([keys // most // most, keys // most % most, keys % most], axis=-1), entry


def _tensor(weights: Weights, name: str, axes: int) -> np.ndarray:
    if name not in weights:
        raise MachineError(f"run: weights lack {name}. They have {len(weights)} tensors.")
    array = np.asarray(weights[name])
    if array.ndim != axes:
        raise MachineError(f"run: {name} has {array.ndim} axes, must have {axes}.")
    return array


def _tiles(wanted: np.ndarray, slots: list[Slot], weights: Weights, dtype: type) -> np.ndarray:
    """uint8 [n, 320, 80]: rows k0.. and columns n0.. of the padded codes, tensor by tensor."""
    store = np.zeros((len(wanted) + 1, TILE_ROWS, F32_LANES), np.uint8)
    begins = np.searchsorted(wanted[:, 0], np.arange(len(slots) + 1))
    for (name, rows, columns), begin, end in zip(slots, begins, begins[1:], strict=False):
        if begin == end:
            continue
        codes = _tensor(weights, name, 2)
        if codes.dtype != np.uint8:
            raise MachineError(f"run: {name} is {codes.dtype}, must be uint8 e4m3 codes.")
        mine = np.arange(begin, end)
        rows = _map(name, rows, codes.shape[0], int(wanted[mine, 1].max()) + TILE_ROWS)
        columns = _map(name, columns, codes.shape[1], int(wanted[mine, 2].max()) + F32_LANES)
        if (codes & 0x7F).max(initial=0) == 0x7F:
            raise MachineError(f"run: {name} holds the e4m3 code of NaN (0x7F or 0xFF).")
        by_column = mine[np.argsort(wanted[mine, 2], kind="stable")]
        cuts = np.flatnonzero(np.diff(wanted[by_column, 2], prepend=-1))
        real = np.flatnonzero(rows >= 0)
        whole = np.array_equal(rows[: len(real)], np.arange(len(codes)))
        padded = np.zeros((TILE_ROWS * int(ceil_div(len(rows), TILE_ROWS)), F32_LANES), np.uint8)
        for some in np.split(by_column, cuts[1:]):
            n0 = int(wanted[some[0], 2])
            block = _line(codes, columns[n0 : n0 + F32_LANES])
            if whole:
                padded[: len(codes)] = block
            else:
                padded[real] = block[rows[real]]
            store[some] = padded.reshape(-1, TILE_ROWS, F32_LANES)[wanted[some, 1] // TILE_ROWS]
    return store


def _line(codes: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[K, 80]: these columns of the codes, zeros for -1; a view where they are consecutive."""
    first = int(columns[0])
    if first >= 0 and np.array_equal(columns, np.arange(first, first + F32_LANES)):
        return codes[:, first : first + F32_LANES]
    return np.where(columns >= 0, codes[:, np.maximum(columns, 0)], np.uint8(0))


def _words(wanted: np.ndarray, slots: list[Slot], weights: Weights, dtype: type) -> np.ndarray:
    """[n + 1, 80]: lanes n0.. of padded vectors (scale exponents or gains); the last entry is zero."""
    store = np.zeros((len(wanted) + 1, F32_LANES), dtype)
    begins = np.searchsorted(wanted[:, 0], np.arange(len(slots) + 1))
    for (name, _, columns), begin, end in zip(slots, begins, begins[1:], strict=False):
        if begin == end:
            continue
        vector = _tensor(weights, name, 1)
        columns = _map(name, columns, len(vector), int(wanted[begin:end, 2].max()) + F32_LANES)
        lanes = columns[wanted[begin:end, 2, None] + np.arange(F32_LANES)]
        store[begin:end] = np.where(lanes >= 0, vector[np.maximum(lanes, 0)], 0)
    return store


def _map(name: str, entries: np.ndarray | None, size: int, positions: int) -> np.ndarray:
    """Real index of at least so many padded positions, -1 where there is none; without a map as they come."""
    if entries is None:
        entries = np.arange(size)
    if entries.max(initial=-1) >= size:
        raise MachineError(f"run: the program reads index {entries.max()} of {name}, which has {size}.")
    return np.append(entries, np.full(max(positions - len(entries), 0), -1))


def _embedding(
    loads: Loads, rows: np.ndarray, slots: list[Slot], weights: Weights
) -> tuple[np.ndarray, np.ndarray]:
    """(int32 [n, 80] columns per line, first entry of each TABLE load)."""
    known: dict[bytes, int] = {}
    lines: list[np.ndarray] = []
    entry = np.zeros(len(rows), np.int64)
    for i, row in enumerate(rows):
        name, _, columns = slots[loads.tensor[row]]
        first, count = int(loads.n0[row]), int(loads.lines[row])
        size = _tensor(weights, name, 2).shape[1]
        columns = _map(name, columns, size, first + count * F32_LANES)
        block = columns[first : first + count * F32_LANES].astype(np.int32)
        if block.tobytes() not in known:
            known[block.tobytes()] = sum(map(len, lines))
            lines.append(block.reshape(count, F32_LANES))
        entry[i] = known[block.tobytes()]
    return np.concatenate([*lines, np.full((1, F32_LANES), -1, np.int32)]), entry


def _whole(
    loads: Loads, rows: np.ndarray, slots: list[Slot], weights: Weights, dtype: type
) -> tuple[tuple[Array, ...], np.ndarray]:
    """(the distinct tensors that these loads hold whole, index of each load's)."""
    names = [slots[loads.tensor[row]][0] for row in rows]
    distinct = list(dict.fromkeys(names))
    arrays: list[Array] = []
    for name in distinct:
        array = _tensor(weights, name, 2 if dtype is np.float16 else 3)
        if array.dtype != dtype:
            raise MachineError(f"run: {name} is {array.dtype}, must be {np.dtype(dtype)}.")
        arrays.append(jax.device_put(array))
    return tuple(arrays), np.array([distinct.index(name) for name in names], np.int64)
