"""The bytes of an image: tensors cut into tiles, scale and gain words, tables and angles.

A matrix is taken in strips of 320 rows, which stay in cache between being read (or drawn from a seed) and
lying as tiles. Strips write disjoint parts of the store, so any number of threads gives the same bytes.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float16, Int, Int32, Shaped, UInt8

from compiler.program.isa import F32_LANES, FACTOR, GAIN, SCALE, SHIFTED, TILE, TILE16, TILE_ROWS
from compiler.program.program import Loads
from lpu.run.error import MachineError
from lpu.run.image import Image, ImagePlan, LoadedImage, Slot, Weights, plan_image
from lpu.run.stacks import stack_rows
from models.contract.deferred import shift

Job = Callable[[], None]
ReadRows = Callable[[int, int], np.ndarray]
"""Rows first .. last-1 of a matrix, uint8 [rows, columns]."""
Entries = Int[np.ndarray, "tiles 3"]
Tiles = UInt8[np.ndarray, "tiles 320 80"]
Runs = list[tuple[int, int, np.ndarray | int]]
"""First line of a run, the last, the real column of its lane 0; of a line alone int64 [80], of all lanes."""


def fill_image(loads: Loads, slots: list[Slot], weights: Weights) -> LoadedImage:
    """The image of a program's loads; raises MachineError for a tensor that does not fit."""
    planned = plan_image(loads, slots)
    tiles = np.zeros((planned.tiles + 1, TILE_ROWS, F32_LANES), np.uint8)
    for jobs in tile_jobs(planned, weights, tiles):
        for job in jobs:
            job()
    return LoadedImage(with_tiles(planned, weights, jax.device_put(tiles)), planned, loads, slots)


def with_tiles(planned: ImagePlan, weights: Weights, tiles: UInt8[jax.Array, "tiles 320 80"]) -> Image:
    """The image of these tiles and of all else that it holds, which is small."""
    return Image(
        tiles=tiles,
        scales=jax.device_put(_words(planned, weights, SCALE, np.float64)),
        gains=jax.device_put(_words(planned, weights, GAIN, np.float32)),
        shifted=jax.device_put(_words(planned, weights, SHIFTED, np.float64)),
        factors=jax.device_put(_words(planned, weights, FACTOR, np.float64)),
        columns=jax.device_put(_columns(planned, weights)),
        tables=tuple(jax.device_put(_whole(weights, name, np.float16)) for name in planned.tables),
        angles=tuple(jax.device_put(_whole(weights, name, np.int32)) for name in planned.angles),
        halves=jax.device_put(_halves(planned, weights)),
        stacks=jax.device_put(planned.stacks.astype(np.int32)),
    )


def tile_jobs(planned: ImagePlan, weights: Weights, store: Tiles) -> Iterator[list[Job]]:
    """Per matrix the jobs that write its tiles into the store, in any order, each on any thread.

    A matrix that can only be had whole is one job.
    """
    wanted = planned.wanted[TILE]
    begins = np.searchsorted(wanted[:, 0], np.arange(len(planned.slots) + 1))
    for slot, begin, end in zip(planned.slots, begins, begins[1:], strict=False):
        if begin == end:
            continue
        read = row_reader(weights, slot[0])
        if read is None:
            yield [_whole_job(slot, wanted[begin:end], weights, store[begin:end])]
        else:
            shape, dtype = axes_of(weights, slot[0])
            size = _codes_shape(slot[0], shape, dtype), heads_of(weights, slot[0])
            yield list(_strips(slot, wanted[begin:end], size, read, store[begin:end]))


def _whole_job(slot: Slot, wanted: Entries, weights: Weights, store: Tiles) -> Job:
    def job() -> None:
        held = _tensor(weights, slot[0], len(axes_of(weights, slot[0])[0]))
        codes = held.reshape(-1, held.shape[-1])  # of a stack one matrix below the other
        size = _codes_shape(slot[0], held.shape, held.dtype), heads_of(weights, slot[0])
        for strip in _strips(slot, wanted, size, lambda first, last: codes[first:last], store):
            strip()

    return job


def _codes_shape(name: str, shape: tuple[int, ...], dtype: Any) -> tuple[int, ...]:
    """The shape of a matrix of codes; MachineError for another format."""
    if dtype != np.uint8:
        raise MachineError(f"run: {name} is {dtype}, must be uint8 e4m3 codes.")
    return shape


def _strips(
    slot: Slot, wanted: Entries, size: tuple[tuple[int, ...], int], read: ReadRows, store: Tiles
) -> Iterator[Job]:
    """A job per 320 rows: those rows of these columns into the tiles that want them.

    size: the shape of the matrix or stack, and of how many heads it holds one.
    """
    name, rows, columns = slot
    shape, heads = size
    if len(shape) == 3:  # a stack
        rows, shape = stack_rows(rows, *shape[:2]), (shape[0] * shape[1], shape[2])
    rows = index_map(name, rows, shape[0], int(wanted[:, 1].max()) + TILE_ROWS)
    columns = index_map(name, columns, heads * shape[1], int(wanted[:, 2].max()) + F32_LANES)
    if heads > 1:
        _check_heads(name, rows, columns, wanted, (shape[0] // heads, shape[1]))
        columns = np.where(columns >= 0, columns % shape[1], -1)
    runs: dict[bytes, Runs] = {}
    cuts = np.flatnonzero(np.diff(wanted[:, 1], prepend=-1))
    for begin, end in zip(cuts, np.append(cuts[1:], len(wanted)), strict=True):
        k0, lines = int(wanted[begin, 1]), wanted[begin:end, 2]
        key = lines.tobytes()
        if key not in runs:
            runs[key] = _runs(columns[lines[:, None] + np.arange(F32_LANES)])
        yield _strip(name, rows[k0 : k0 + TILE_ROWS], runs[key], read, store[begin:end])


def heads_of(weights: Weights, name: str) -> int:
    """How many matrices of heads lie one below the other in a tensor: its scales say it, one per column."""
    shapes, path = getattr(weights, "shapes", {}), name.removesuffix("codes")
    for scale in (f"{path}exponent", f"{path}scale"):
        if scale in shapes:
            return int(np.prod(shapes[scale].shape)) // shapes[name].shape[-1]
        if scale in weights and name not in shapes:
            return weights[scale].size // weights[name].shape[-1]
    return 1


def _check_heads(
    name: str,
    rows: Int[np.ndarray, " rows"],
    columns: Int[np.ndarray, " columns"],
    wanted: Entries,
    size: tuple[int, int],
) -> None:
    """Raise MachineError for a tile of rows of one head and columns of another, which is no matrix."""
    of_row, of_column = (np.where(at >= 0, at // n, -1) for at, n in zip((rows, columns), size, strict=True))
    for k0, n0 in np.unique(wanted[:, 1:], axis=0).tolist():
        found = {*of_row[k0 : k0 + TILE_ROWS].tolist(), *of_column[n0 : n0 + F32_LANES].tolist()} - {-1}
        if len(found) > 1:
            raise MachineError(f"run: a tile of {name} has rows and columns of heads {sorted(found)}.")


def _strip(
    name: str,
    rows: Int[np.ndarray, "320"],
    runs: Runs,
    read: ReadRows,
    store: Tiles,
) -> Job:
    def job() -> None:
        strip = _rows(name, rows, read)
        for first, last, lanes in runs:
            into = store[first:last]
            if isinstance(lanes, int):
                block = strip[:, lanes : lanes + (last - first) * F32_LANES]
                into[:] = block.reshape(TILE_ROWS, last - first, F32_LANES).transpose(1, 0, 2)
            else:
                into[0] = np.where(lanes >= 0, strip[:, np.maximum(lanes, 0)], np.uint8(0))

    return job


def _rows(name: str, rows: Int[np.ndarray, "320"], read: ReadRows) -> UInt8[np.ndarray, "320 columns"]:
    """These rows of the matrix, zeros for -1."""
    real = np.flatnonzero(rows >= 0)
    first, last = (int(rows[real].min()), int(rows[real].max()) + 1) if len(real) else (0, 0)
    codes = read(first, last)
    if codes.max(initial=0) == 0xFF or codes.view(np.int8).max(initial=0) == 0x7F:
        raise MachineError(f"run: {name} holds the e4m3 code of NaN (0x7F or 0xFF).")
    if len(real) == TILE_ROWS and np.array_equal(rows, np.arange(first, last)):
        return codes
    strip = np.zeros((TILE_ROWS, codes.shape[1]), np.uint8)
    strip[real] = codes[rows[real] - first]
    return strip


def _runs(lanes: Int[np.ndarray, "lines 80"]) -> Runs:
    """Lines of consecutive columns as few runs, other lines one by one; `lanes`: real column of each lane."""
    whole = (np.diff(lanes, axis=1) == 1).all(axis=1) & (lanes[:, 0] >= 0)
    joined = whole[1:] & whole[:-1] & (lanes[1:, 0] == lanes[:-1, -1] + 1)
    cuts = [*np.flatnonzero(np.append(True, ~joined)), len(lanes)]
    return [
        (int(first), int(last), int(lanes[first, 0]) if whole[first] else lanes[first])
        for first, last in pairwise(cuts)
    ]


def _words(planned: ImagePlan, weights: Weights, kind: int, dtype: type) -> Shaped[np.ndarray, "entries 80"]:
    """Lanes n0.. of padded vectors (scales, gains, factors); the last entry is zero."""
    wanted = planned.wanted[kind]
    store = np.zeros((len(wanted) + 1, F32_LANES), dtype)
    begins = np.searchsorted(wanted[:, 0], np.arange(len(planned.slots) + 1))
    for (name, _, columns), begin, end in zip(planned.slots, begins, begins[1:], strict=False):
        if begin == end:
            continue
        vector = _as_held(_tensor(weights, name, 1), kind)
        columns = index_map(name, columns, len(vector), int(wanted[begin:end, 2].max()) + F32_LANES)
        lanes = columns[wanted[begin:end, 2, None] + np.arange(F32_LANES)]
        store[begin:end] = np.where(lanes >= 0, vector[np.maximum(lanes, 0)], 0)
    return store


def _halves(planned: ImagePlan, weights: Weights) -> Float16[np.ndarray, "entries 320 80"]:
    """Tiles of fp16 weights; the last one is zero."""
    wanted = planned.wanted[TILE16]
    store = np.zeros((len(wanted) + 1, TILE_ROWS, F32_LANES), np.float16)
    for i, (slot, k0, n0) in enumerate(wanted.tolist()):
        name, rows, columns = planned.slots[slot]
        matrix = _tensor(weights, name, 2)
        down = index_map(name, rows, matrix.shape[0], k0 + TILE_ROWS)[k0 : k0 + TILE_ROWS]
        across = index_map(name, columns, matrix.shape[1], n0 + F32_LANES)[n0 : n0 + F32_LANES]
        real = (down >= 0)[:, None] & (across >= 0)
        store[i] = np.where(real, matrix[np.maximum(down, 0)[:, None], np.maximum(across, 0)], 0)
    return store


def _as_held(vector: Shaped[np.ndarray, " n"], kind: int) -> Shaped[np.ndarray, " n"]:
    """A tensor's numbers as words of a kind hold them."""
    if kind == SCALE and vector.dtype == np.int32:
        return np.ldexp(1.0, vector)
    if kind == SHIFTED:
        return np.ldexp(vector.astype(np.float64), -int(shift(jnp.asarray(vector))))
    if kind == FACTOR:
        return np.full(len(vector), np.ldexp(1.0, int(shift(jnp.asarray(vector)))))
    return vector


def _columns(planned: ImagePlan, weights: Weights) -> Int32[np.ndarray, "lines 80"]:
    """Table columns per embedding line; the last line is -1."""
    lines: list[np.ndarray] = []
    for slot, first, count in planned.gathers:
        name, _, columns = planned.slots[slot]
        last = first + count * F32_LANES
        columns = index_map(name, columns, shape_of(weights, name)[0][-1], last)
        lines.append(columns[first:last].astype(np.int32).reshape(count, F32_LANES))
    return np.concatenate([*lines, np.full((1, F32_LANES), -1, np.int32)])


def index_map(
    name: str, entries: Int[np.ndarray, " mapped"] | None, size: int, positions: int
) -> Int[np.ndarray, " padded"]:
    """Real index of each padded position, `positions` or more; -1 for padding; identity for None."""
    if entries is None:
        entries = np.arange(size)
    if entries.max(initial=-1) >= size:
        raise MachineError(f"run: the program reads index {entries.max()} of {name}, which has {size}.")
    return np.append(entries, np.full(max(positions - len(entries), 0), -1))


def _whole(weights: Weights, name: str, dtype: type) -> np.ndarray:
    array = _tensor(weights, name, 2 if dtype is np.float16 else 3)
    if array.dtype != dtype:
        raise MachineError(f"run: {name} is {array.dtype}, must be {np.dtype(dtype)}.")
    return array


def _tensor(weights: Weights, name: str, axes: int) -> np.ndarray:
    if name not in weights:
        raise MachineError(f"run: weights lack {name}. They have {len(weights)} tensors.")
    array = np.asarray(weights[name])
    if array.ndim != axes:
        raise MachineError(f"run: {name} has {array.ndim} axes, must have {axes}.")
    return array


def shape_of(weights: Weights, name: str) -> tuple[tuple[int, int], Any]:
    """(shape, dtype) of a matrix, without reading it where the weights say so; of a stack of all its rows."""
    shape, dtype = axes_of(weights, name)
    return (int(np.prod(shape[:-1])), shape[-1]), dtype


def axes_of(weights: Weights, name: str) -> tuple[tuple[int, ...], Any]:
    """(shape, dtype) of a matrix or of a stack of them."""
    shapes = getattr(weights, "shapes", {})
    held: Any = shapes[name] if name in shapes else np.asarray(weights[name]) if name in weights else None
    if held is None:
        raise MachineError(f"run: weights lack {name}. They have {len(weights)} tensors.")
    if len(held.shape) not in (2, 3):
        raise MachineError(f"run: {name} has {len(held.shape)} axes, must have 2.")
    return tuple(held.shape), held.dtype


def row_reader(weights: Weights, name: str) -> ReadRows | None:
    """How rows of a matrix are read on their own, where they can be without the rest of it."""
    reader = getattr(weights, "row_reader", None)
    return None if reader is None else reader(name)
