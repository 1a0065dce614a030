"""The number formats of the contract: roundings, exact sums of two, decoding, and the start-up guard.

Source: facts/numerics.md sections 2.1 to 2.3 and 3. A multiply may feed an add only where the product is
exact, so that FMA contraction cannot change a bit; every zero is +0; subnormals are flushed explicitly, as
XLA on CPU flushes them and numpy does not. Importing this module pins JAX's settings,
64-bit among them (`settings.py`).
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float16, Float32, Float64, Int, Int64, UInt8

from models.contract.settings import enable

F16, F32, F64, I64 = jnp.float16, jnp.float32, jnp.float64, jnp.int64
LARGEST16 = 65504.0
_TINY = float(np.finfo(np.float32).tiny)


class NumericsError(RuntimeError):
    """This JAX does not keep the contract: 64-bit is off, or the compiler reorders float arithmetic."""

    exit_code = 1


class Wide(NamedTuple):
    """A sum before its rounding: exactly `high + low`. Adding wide partials element by element is exact."""

    high: Float64[Array, "*shape"]
    low: Float64[Array, "*shape"]


enable()


def rn32(v: Float64[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Round to nearest f32; what lies below 2^-126 becomes +0."""
    return jnp.where(jnp.abs(v) < _TINY, F32(0), v.astype(F32))


def plus0(v: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """The value, with -0 turned into +0 (XLA drops an addition of 0)."""
    return jnp.where(v == 0, F64(0), v)


def flush32(v: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The value, or +0 below 2^-126."""
    return jnp.where(jnp.abs(v) < _TINY, F32(0), v)


def rn16(v: Float32[Array, "*shape"]) -> Float16[Array, "*shape"]:
    """Clip to +-65504, round to nearest fp16 (subnormals kept), -0 becomes +0."""
    half = jnp.clip(v, -LARGEST16, LARGEST16).astype(F16)
    return jnp.where(half == 0, F16(0), half)


def clips16(v: Float32[Array, "*shape"]) -> Int64[Array, ""]:
    """How many values `rn16` clips."""
    return jnp.sum(jnp.abs(v) > LARGEST16, dtype=I64)


def rn8(v: Float32[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    """Clip to +-448, round to nearest e4m3 code; code 0x80 (-0) becomes 0."""
    v = jnp.clip(v, -448.0, 448.0)
    bits = lax.bitcast_convert_type(v, jnp.uint32)
    sign, m = (bits >> 24) & 0x80, bits & 0x7FFFFFFF
    normal = ((m + 0x7FFFF + ((m >> 20) & 1)) >> 20) - 960
    code = jnp.where(m >= 0x3C800000, normal, jnp.round(jnp.abs(v) * 512).astype(jnp.uint32))
    return jnp.where(code == 0, 0, code | sign).astype(jnp.uint8)


def add32(a: Float32[Array, "*#shape"], b: Float32[Array, "*#shape"]) -> Float32[Array, "..."]:
    """The f32 sum of two f32 values, flushed."""
    return flush32(a + b)


def mul32(a: Float32[Array, "*#shape"], b: Float32[Array, "*#shape"]) -> Float32[Array, "..."]:
    """The f32 product of two f32 values, flushed: exact in f64, then rounded once.

    The flush selects between the product and 0, so no compiler contracts it with a sum that takes it.
    """
    return rn32(a.astype(F64) * b.astype(F64))


def mad32(
    a: Float32[Array, "*#shape"], b: Float32[Array, "*#shape"], c: Float32[Array, "*#shape"]
) -> Float32[Array, "..."]:
    """The value rn32(RN64(a b + c)), a b exact in f64: equal with and without FMA."""
    return rn32(a.astype(F64) * b.astype(F64) + c.astype(F64))


def two_sum(
    a: Float64[Array, "*shape"], b: Float64[Array, "*shape"]
) -> tuple[Float64[Array, "*shape"], Float64[Array, "*shape"]]:
    """Knuth's TwoSum: (rounded sum, its error), together exactly a + b."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def odd64(a: Float64[Array, "*shape"], b: Float64[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """The sum rounded to odd: rounding that once more to f32 is as good as rounding a + b itself."""
    return _odd(*two_sum(a, b))


def _odd(s: Array, e: Array) -> Array:
    """A rounded sum and its error as one f64 that is rounded to odd."""
    bits = lax.bitcast_convert_type(s, I64)
    step = jnp.where((e > 0) == (s > 0), 1, -1)
    return lax.bitcast_convert_type(bits + jnp.where((e != 0) & (bits & 1 == 0), step, 0), F64)


def pow2(e: Int[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """2^e exactly, for -1022 <= e <= 1023."""
    return lax.bitcast_convert_type((e.astype(I64) + 1023) << 52, F64)


def decode_e4m3(codes: UInt8[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """Values of e4m3 codes, by way of fp16 bits (through f32 bits the subnormals would be flushed)."""
    return decode_small(codes) * 256


def decode_small(codes: UInt8[Array, "*shape"]) -> Float64[Array, "*shape"]:
    """Values of e4m3 codes times 2^-8: fp16 has the same fields with a bias that is 8 higher."""
    b = codes.astype(jnp.uint16)
    bits = ((b & 0x80) << 8) | ((b & 0x7F) << 7)
    return lax.bitcast_convert_type(bits, F16).astype(F32).astype(F64)


def halves(a: Float16[Array, "*shape"]) -> Wide:
    """Fp16 values as a multiple of 2^-4 and the rest, each of at most 20 bits."""
    x = a.astype(F64)
    high = jnp.round(x * 16) * 0.0625
    return Wide(high, x - high)


TwoSum = Callable[[Array, Array], tuple[Array, Array]]
Product = Callable[[Array, Array], Array]


def guard(two_sum: TwoSum = two_sum, product: Product = mul32) -> None:
    """Raise `NumericsError` unless this JAX keeps the contract: 64-bit, IEEE sums, no reassociation, no FMA.

    The sum 1 + 2^-24 + 2^-80 lies a hair above an f32 midpoint: it must round up, but rounds down (to even)
    as soon as the compiler simplifies TwoSum's error to zero.

    The product (1 + 2^-23) (1 - 2^-23) is 1 - 2^-46, in f32 1: less 1 it must leave nothing, but leaves
    -2^-46 where product and sum are contracted, as XLA does on CPU if the product in f64 is cast to f32
    without more (facts/contract2.md section 0).
    """
    if not jax.config.read("jax_enable_x64"):
        raise NumericsError(
            "numerics: jax_enable_x64 is off, the contract needs f64. Call models.contract.settings.enable()."
        )
    _guard(two_sum, product)


@cache
def _guard(two_sum: TwoSum, product: Product) -> None:
    """The same of sums and products, whose compilation no setting changes once XLA is there."""

    def midpoint(a: Array, b: Array) -> Array:
        return rn32(_odd(*two_sum(a, b)))

    def difference(a: Array, b: Array, c: Array) -> Array:
        return add32(product(a, b), c)

    got = np.asarray(jax.jit(midpoint)(jnp.array([1 + 2.0**-24]), jnp.array([2.0**-80])))[0]
    want = np.float32(1 + 2.0**-23)
    if got != want:
        raise NumericsError(
            f"numerics: 1 + 2^-24 + 2^-80 rounds to {got!r}, the contract says {want!r}. "
            "Is fast-math on (XLA_FLAGS)? It must be off."
        )
    operands = (jnp.array([x], F32) for x in (1 + 2.0**-23, 1 - 2.0**-23, -1.0))
    left = np.asarray(jax.jit(difference)(*operands))[0]
    if left != 0:
        raise NumericsError(
            f"numerics: (1 + 2^-23) (1 - 2^-23) - 1 in f32 gives {left!r}, the contract says 0: "
            "a product and a sum are contracted (FMA). Is fast-math on (XLA_FLAGS)? It must be off."
        )
