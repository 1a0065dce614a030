"""Float weights as e4m3 codes with a power-of-two scale per output column, and back.

Source: facts/numerics.md sections 2.1 and 2.2 (`rn8`). Numpy only, block by block: a block of 128 Ki values
stays in cache, which is what makes a 1B model a matter of seconds.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt8

from models.sources.error import WeightError

FORMAT = "e4m3 codes, 2^e per column, rn8, v1"  # enters every digest: other codes need another name
LARGEST = 448.0
LEAST_EXPONENT = -126  # below it 2^e is no normal f32
_BLOCK = 1 << 17
_SMALLEST_NORMAL = np.uint32(0x3C800000)  # bits of 2^-6
_SUBNORMAL_MAGIC = np.float32(1 << 14)  # one ulp of it is 2^-9, the step of e4m3 subnormals

Values = Float32[np.ndarray, "k n"]


class Quantised(NamedTuple):
    """Codes and exponents of a matrix or a stack (value = code * 2^exponent), and what the rounding cost."""

    codes: UInt8[np.ndarray, "*experts k n"]
    exponent: Int32[np.ndarray, " n"]
    relative_error: float  # root mean square of the error over that of the values
    size: float = 0.0  # sum of the squares of the values


def stacked(made: Sequence[Quantised]) -> Quantised:
    """Matrices one below the other, their exponents one behind the other; of one the same."""
    if len(made) == 1:
        return made[0]
    size = sum(one.size for one in made)
    error = sum(one.relative_error**2 * one.size for one in made)
    codes, exponent = (
        np.concatenate([one.codes for one in made]),
        np.concatenate([one.exponent for one in made]),
    )
    return Quantised(codes, exponent, (error / size) ** 0.5 if size else 0.0, size)


def decode_table() -> Float32[np.ndarray, " 256"]:
    """The value of every e4m3fn code; 0x7F and 0xFF are NaN."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    size = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
    size[code & 0x7F == 0x7F] = np.nan
    return np.where(code & 0x80, -size, size).astype(np.float32)


_TABLE = decode_table()


def dequantise(codes: UInt8[np.ndarray, "k n"], exponent: Int32[np.ndarray, " heads_n"] | None) -> Values:
    """The f32 values of codes with their scales (None: 1), exactly (unless below 2^-126)."""
    values = _TABLE[codes]
    if exponent is not None:
        scale_columns(values, power_of_two(exponent))
    return values


def scale_columns(values: Values, scale: Float32[np.ndarray, " heads_n"]) -> None:
    """Multiply a matrix, or a stack, by a scale per column in place; more scales are of matrices of heads."""
    if values.ndim > 2:
        values *= scale
        return
    n = values.shape[1]
    heads = len(scale) // n
    k = len(values) // heads
    for head in range(heads):
        values[head * k : (head + 1) * k] *= scale[head * n : (head + 1) * n]


def power_of_two(exponent: Int32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """2^exponent, exactly."""
    return np.ldexp(np.float32(1), exponent)


@functools.lru_cache(maxsize=1)
def _half_table() -> Float32[np.ndarray, " 65536"]:
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def widen(values: Shaped[np.ndarray, "*axes"]) -> Float32[np.ndarray, "*axes"]:
    """The same values in f32. Fp16 goes by a table: numpy's own conversion is six times slower."""
    return _half_table()[values.view(np.uint16)] if values.dtype == np.float16 else values.astype(np.float32)


def quantise(values: Values, name: str = "matrix") -> Quantised:
    """The nearest e4m3 codes, at the least power-of-two scale per column that keeps the column inside +-448.

    A transposed view is fine and stays a view; NaN or infinity raise `WeightError` with the index.
    """
    if values.ndim != 2:
        raise WeightError(f"{name}: has {values.ndim} axes, a matrix to quantise has 2.")
    by_column = not values.flags.c_contiguous and values.T.flags.c_contiguous
    rows = values.T if by_column else values  # rows lie together in memory
    exponent = exponents_of(_largest(rows, values, name, axis=1 if by_column else 0))
    scale = power_of_two(-exponent)
    scales = np.broadcast_to(scale[:, None] if by_column else scale, rows.shape)
    codes = np.empty(values.shape, np.uint8)
    into = codes.T if by_column else codes
    error, total = 0.0, 0.0
    for part in _blocks(rows):
        scaled = rows[part] * scales[part]
        rounded, into[part] = rounded_codes(scaled)
        scaled *= (unit := 1 / scales[part])
        rounded *= unit
        rounded -= scaled
        error += float(np.einsum("ij,ij->", rounded, rounded, dtype=np.float64))
        total += float(np.einsum("ij,ij->", scaled, scaled, dtype=np.float64))
    relative = (error / total) ** 0.5 if total else 0.0
    return Quantised(codes, exponent, relative, total)


def to_e4m3(values: Values) -> UInt8[np.ndarray, "k n"]:
    """Contract rounding `rn8` of finite values: clip to +-448, nearest even, no -0."""
    return rounded_codes(np.clip(values, np.float32(-LARGEST), np.float32(LARGEST)))[1]


def check_finite(values: Shaped[np.ndarray, "*axes"], name: str) -> None:
    """Raise `WeightError` with the first index that holds NaN or infinity."""
    finite = np.isfinite(values)
    if not finite.all():
        index = np.unravel_index(int(np.argmin(finite)), values.shape)
        raise WeightError(
            f"{name}: {values.size - int(finite.sum())} of {values.size} values are not finite, the first is "
            f"{values[index]} at {[int(i) for i in index]}. Repair the checkpoint; the contract takes no NaN."
        )


def _largest(
    rows: Float32[np.ndarray, "rows width"], values: Values, name: str, axis: int
) -> Float32[np.ndarray, " n"]:
    """Largest magnitude per column of `values`, checked to be finite."""
    largest = np.zeros(values.shape[1], np.float32)
    for part in _blocks(rows):
        block = np.abs(rows[part]).max(axis=axis, initial=0)
        if axis == 1:
            largest[part] = block
        else:
            np.maximum(largest, block, out=largest)
    if not np.isfinite(largest).all():
        check_finite(values, name)
    return largest


def exponents_of(largest: Float32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """The least e with largest <= 448 * 2^e; 0 for a column of zeros."""
    fraction, power = np.frexp(largest)  # 448 = 0.875 * 2^9
    exponent = power - 9 + (fraction > 0.875)
    exponent[largest == 0] = 0
    return np.maximum(exponent, LEAST_EXPONENT).astype(np.int32)


def _blocks(rows: Float32[np.ndarray, "rows width"]) -> list[slice]:
    step = max(_BLOCK // max(rows.shape[1], 1), 32)
    return [slice(first, first + step) for first in range(0, rows.shape[0], step)]


def rounded_codes(values: Values) -> tuple[Values, UInt8[np.ndarray, "k n"]]:
    """Values within +-448 rounded to e4m3: as f32, and as codes."""
    bits = values.view(np.uint32)
    m = bits & np.uint32(0x7FFFFFFF)
    small = m < _SMALLEST_NORMAL
    low = m.view(np.float32) + _SUBNORMAL_MAGIC
    m += np.uint32(0x7FFFF) + ((m >> np.uint32(20)) & np.uint32(1))
    m &= np.uint32(0xFFF00000)
    code = (m >> np.uint32(20)) - np.uint32(960)
    np.copyto(code, low.view(np.uint32) - _SUBNORMAL_MAGIC.view(np.uint32), where=small)
    low -= _SUBNORMAL_MAGIC
    np.copyto(m.view(np.float32), low, where=small)
    sign = bits & np.uint32(0x80000000)
    m |= sign
    code |= (sign >> np.uint32(24)) * (code != 0)
    return m.view(np.float32), code.astype(np.uint8)
