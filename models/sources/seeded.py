"""Random weights by seed: equal bytes for equal seed, path and shape, whatever is loaded and in what order.

Philox's raw stream and the tables here are fixed, so nothing depends on the version of numpy.
"""

import functools
import hashlib
import json
import math
from statistics import NormalDist

import jax
import numpy as np
from jaxtyping import Float16, Float32, Float64, Int32, Shaped, UInt8, UInt16

from models.families.family import HEAD, TABLE
from models.sources.error import WeightError
from models.sources.quantise import (
    Quantised,
    dequantise,
    power_of_two,
    quantise,
    scale_columns,
    to_e4m3,
    widen,
)
from models.sources.weights import ReadRows, Shapes

SCHEME = "lpu-emulator weights by seed, v1"  # enters every tensor: other values need another name
_CODES, _EXPONENT, _SCALE, _BIAS = ".codes", ".exponent", ".scale", ".bias"
_HALVES = ".halves"  # of routers
_HALF_BITS = 10  # binades above 1 of their values
_DECAY = ".decay"
_VARIANCE = 1.5625  # of a weight, from exponents that vary by -1, 0, 0, 1
_NORMAL = NormalDist()
_BLOCK_BYTES = 32  # that Philox makes of one counter
_BLOCK = 1 << 16  # codes drawn and looked up at a time: they stay in cache; a multiple of the above


def seeded(shapes: Shapes, seed: int, *, tied: bool = False) -> "Seeded":
    """Random weights of a model's shapes (`weight_shapes`): equal bytes for equal seed, path and shape.

    Nothing else matters: not which tensors are loaded, nor in what order, nor the version of numpy.
    In a tied model `head` is the quantised transpose of `embed.table`.
    """
    return Seeded(shapes, seed, tied=tied)


class Seeded:
    """`Weights` drawn from a seed; see `seeded`.

    Matrices are Gaussian at a standard deviation of 1/sqrt(k), so that outputs stay near 1, with exponents
    that differ between columns; gains lie within 1 +- 1/16, biases within 1/16, decays as gains below 0;
    table rows have length 1.
    """

    def __init__(self, shapes: Shapes, seed: int, *, tied: bool = False) -> None:
        self.shapes = dict(shapes)
        self.seed, self.tied = seed, tied
        self.identity = f"seed {seed}"
        self.relative_errors: dict[str, float] = {}
        self.notes: tuple[str, ...] = ()
        self._last: tuple[str, Quantised] | None = None
        for name, shape in self.shapes.items():
            self._check(name, shape)
        if tied:
            self._check_tied()

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor of that path."""
        if name not in self.shapes:
            raise WeightError(f"{self.identity}: no tensor {name} among {len(self.shapes)}. Check the model.")
        shape = self.shapes[name]
        if self.tied and name == HEAD + _CODES:
            return self._tied_head().codes
        if name.endswith(_SCALE):
            return np.ldexp(np.float32(1), self._exponent(name.removesuffix(_SCALE) + _EXPONENT, shape.shape))
        raw = _Stream(self.seed, name)
        if name.endswith(_EXPONENT):
            return self._exponent(name, shape.shape)
        if shape.dtype == np.uint8:
            return _codes(raw, shape.shape, self._depth(name))
        if name.endswith(_HALVES):
            return _half_codes(raw, shape.shape)
        if shape.dtype == np.float16:
            return _table(raw, shape.shape)
        gains = _gains(raw, shape.shape)
        if name.endswith(_DECAY):
            return -gains
        return gains - np.float32(1) if name.endswith(_BIAS) else gains

    def row_reader(self, name: str) -> ReadRows | None:
        """Rows of a matrix, a stack of them or a table, drawn from the middle of its stream."""
        shape = self.shapes.get(name)
        tied_head = self.tied and name == HEAD + _CODES
        if shape is None or tied_head or shape.dtype not in (np.uint8, np.float16):
            return None
        if len(shape.shape) < 2 or name.endswith(_HALVES):
            return None
        width, draw = shape.shape[-1], _codes if shape.dtype == np.uint8 else _table
        depth = self._depth(name) if shape.dtype == np.uint8 else 0

        def read(first: int, last: int) -> Shaped[np.ndarray, "rows width"]:
            begin = first * width * shape.dtype.itemsize
            return draw(_Stream(self.seed, name, begin), (last - first, width), depth)

        return read

    def plain(self, name: str) -> Shaped[np.ndarray, "*axes"]:
        """The tensor in f32; the head of a tied model before its quantisation."""
        if self.tied and name == HEAD + _CODES:
            return widen(self[TABLE]).T
        if name.endswith(_CODES):
            path = name.removesuffix(_CODES)
            if path + _SCALE in self.shapes:
                values = dequantise(self[name], None)
                scale_columns(values, self[path + _SCALE])
                return values
            return dequantise(self[name], self[path + _EXPONENT])
        values = self[name]
        if name.endswith(_HALVES):
            return widen(values) * power_of_two(self[name.removesuffix(_HALVES) + _EXPONENT])
        return values if name.endswith(_EXPONENT) else widen(values)

    def digest(self) -> str:
        """Sha256 of scheme, seed and shapes; costs nothing."""
        held = [[name, list(shape.shape), str(shape.dtype)] for name, shape in sorted(self.shapes.items())]
        return hashlib.sha256(json.dumps([SCHEME, self.seed, self.tied, held]).encode()).hexdigest()

    def _exponent(self, name: str, shape: tuple[int, ...]) -> Int32[np.ndarray, "*experts n"]:
        """Exponents by their path; a scale in f32 is the power of two of the exponent in its place."""
        if self.tied and name == HEAD + _EXPONENT:
            return self._tied_head().exponent
        raw, halves = _Stream(self.seed, name), self.shapes.get(name.removesuffix(_EXPONENT) + _HALVES)
        if halves is not None:
            return _around(raw, shape, round(-math.log2(halves.shape[0]) / 2) - _HALF_BITS)
        return _exponents(raw, shape, self._depth(name))

    def _depth(self, name: str) -> int:
        """Rows that a product sums: of matrices of heads, one below the other, those of one head."""
        path = name.rpartition(".")[0]
        *_, rows, columns = self.shapes[path + _CODES].shape
        scales = self.shapes.get(path + _EXPONENT) or self.shapes.get(path + _SCALE)
        heads = 1 if scales is None or len(scales.shape) > 1 else max(scales.shape[0] // columns, 1)
        return rows // heads

    def _tied_head(self) -> Quantised:
        if self._last is None:
            self._last = HEAD, quantise(widen(self[TABLE]).T, HEAD)
            self.relative_errors[HEAD + _CODES] = self._last[1].relative_error
        return self._last[1]

    def _check(self, name: str, shape: jax.ShapeDtypeStruct) -> None:
        path = name.removesuffix(_EXPONENT)
        of = path + _CODES in self.shapes or path + _HALVES in self.shapes
        exponent = name.endswith(_EXPONENT) and shape.dtype == np.int32 and of
        matrix = name.endswith(_CODES) and shape.dtype == np.uint8 and len(shape.shape) >= 2
        if not (exponent or matrix or (shape.dtype in (np.float16, np.float32) and shape.shape)):
            raise WeightError(
                f"{self.identity}: no rule to draw {name}, {shape.dtype} {list(shape.shape)}. It takes uint8 "
                "<path>.codes with int32 <path>.exponent, fp16 tables, f32 gains; leave constants out."
            )

    def _check_tied(self) -> None:
        table, head = self.shapes.get(TABLE), self.shapes.get(HEAD + _CODES)
        if table is None or head is None or table.shape[::-1] != head.shape:
            held = [None if one is None else list(one.shape) for one in (table, head)]
            raise WeightError(
                f"{self.identity}: tied, but {TABLE} is {held[0]} and {HEAD}{_CODES} {held[1]}: one must be "
                "the transpose of the other. Set tied: false."
            )


class _Stream:
    """Random bytes of one tensor from byte `begin` on: Philox (its raw stream is fixed) by seed and path."""

    def __init__(self, seed: int, name: str, begin: int = 0) -> None:
        key = hashlib.sha256(f"{SCHEME}\n{seed}\n{name}".encode()).digest()
        blocks, skip = divmod(begin, _BLOCK_BYTES)
        self._bits = np.random.Philox(key=int.from_bytes(key[:16], "little"), counter=blocks)
        self._rest = self._draw(_BLOCK_BYTES)[skip:] if skip else self._draw(0)

    def take(self, count: int) -> UInt8[np.ndarray, " count"]:
        """The next bytes."""
        raw = self._draw(count - len(self._rest))
        if len(self._rest):
            raw = np.concatenate([self._rest, raw])
        self._rest = raw[count:]
        return raw[:count]

    def _draw(self, count: int) -> UInt8[np.ndarray, " more"]:
        return self._bits.random_raw(max(-(-count // 8), 0)).astype("<u8", copy=False).view(np.uint8)


def _codes(raw: _Stream, shape: tuple[int, ...], depth: int = 0) -> UInt8[np.ndarray, "*experts k n"]:
    """A code for every random byte, looked up two at a time, block by block to stay in cache."""
    table, count = _pair_table(depth or shape[-2]), math.prod(shape)
    out = np.empty(count + count % 2, np.uint8)
    for first in range(0, len(out), _BLOCK):
        part = out[first : first + _BLOCK]
        pairs = _even(raw.take(min(len(part), count - first))).view("<u2")
        np.take(table, pairs, out=part.view("<u2"), mode="clip")
    return out[:count].reshape(shape)


def _even(values: UInt8[np.ndarray, " count"]) -> UInt8[np.ndarray, " even"]:
    """The bytes, one more if they are odd in number; aligned to two."""
    if len(values) % 2:
        return np.append(values, np.uint8(0))
    return values if values.ctypes.data % 2 == 0 else values.copy()


def _exponents(raw: _Stream, shape: tuple[int, ...], depth: int) -> Int32[np.ndarray, "*experts n"]:
    return _around(raw, shape, _scale(depth)[1])


def _around(raw: _Stream, shape: tuple[int, ...], middle: int) -> Int32[np.ndarray, "*experts n"]:
    byte = raw.take(math.prod(shape)).reshape(shape)
    return np.array([-1, 0, 0, 1], np.int32)[byte & 3] + np.int32(middle)


def _half_codes(raw: _Stream, shape: tuple[int, ...]) -> Float16[np.ndarray, "k n"]:
    index = raw.take(2 * math.prod(shape)).view("<u2").reshape(shape)
    return np.ldexp(_quantiles(1 << 16), _HALF_BITS).astype(np.float16)[index]


def _table(raw: _Stream, shape: tuple[int, ...], depth: int = 0) -> Float16[np.ndarray, "*rows width"]:
    index = raw.take(2 * math.prod(shape)).view("<u2").reshape(shape)
    return (_quantiles(1 << 16) * shape[-1] ** -0.5).astype(np.float16)[index]


def _gains(raw: _Stream, shape: tuple[int, ...]) -> Float32[np.ndarray, "*width"]:
    index = raw.take(2 * math.prod(shape)).view("<u2").reshape(shape)
    return np.float32(1) + (index.astype(np.float32) - np.float32(1 << 15)) * np.float32(2.0**-19)


def _scale(depth: int) -> tuple[float, int]:
    """Standard deviation in units of a code, within [64, 128) so that none is clipped, and the exponent."""
    fraction, power = math.frexp((depth * _VARIANCE) ** -0.5 / 64)
    return 128 * fraction, power - 1


@functools.lru_cache(maxsize=16)
def _code_table(depth: int) -> UInt8[np.ndarray, " 256"]:
    """The code for every random byte."""
    return to_e4m3((_quantiles(256) * _scale(depth)[0]).astype(np.float32)[None])[0]


@functools.lru_cache(maxsize=16)
def _pair_table(depth: int) -> UInt16[np.ndarray, " 65536"]:
    """The two codes (uint16) for every two random bytes."""
    table = _code_table(depth).astype("<u2")
    return (table[None] | table[:, None] << 8).reshape(-1)


@functools.lru_cache(maxsize=2)
def _quantiles(count: int) -> Float64[np.ndarray, " count"]:
    """Quantiles of the normal distribution at the middle of `count` equal parts; symmetric, none is 0."""
    half = [_NORMAL.inv_cdf((2 * i + 1) / (2 * count)) for i in range(count // 2)]
    return np.array(half + [-value for value in reversed(half)])
