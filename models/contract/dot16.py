"""Products of fp16 with fp16, summed exactly: attention scores, and matmuls whose weights are fp16.

Both factors are split in halves of 20 bits; of the four sums of products the middle two are added. Each is
exact in f64 for 8192 terms, in any order. Source: facts/contract2.md section 5 (MATMUL16), numerics.md 2.5.
"""

from typing import NamedTuple

from jax import Array
from jaxtyping import Float16, Float32, Float64, Int32

from models.contract.formats import halves, odd64, plus0, pow2, rn32, two_sum

MOST_K = 8192  # terms of a sum that stay exact


class Sums(NamedTuple):
    """A sum of products before its rounding: exactly `high + middle + low`. Adding such sums is exact."""

    high: Float64[Array, "*shape"]
    middle: Float64[Array, "*shape"]
    low: Float64[Array, "*shape"]


def sums(a: Float16[Array, "*batch m k"], b: Float16[Array, "*batch k n"]) -> Sums:
    """The exact products [..., m, n]. Raises ValueError beyond 8192 terms."""
    if a.shape[-1] > MOST_K:
        raise ValueError(f"dot16: {a.shape[-1]} terms in a sum, fp16 times fp16 stays exact up to {MOST_K}.")
    a_high, a_low = halves(a)
    b_high, b_low = halves(b)
    return Sums(plus0(a_high @ b_high), plus0(a_high @ b_low + a_low @ b_high), plus0(a_low @ b_low))


def rounded_odd(part: Sums) -> Float64[Array, "*shape"]:
    """The sum rounded to odd in f64."""
    s, e = two_sum(part.high, part.middle)
    return odd64(s, e + part.low)


def matmul16(
    a: Float16[Array, "batch k"], weights: Float16[Array, "k n"], exponent: Int32[Array, "*n"]
) -> Float32[Array, "batch n"]:
    """MATMUL16, for routers: fp16 times fp16 weights times 2^exponent per column, rounded once."""
    return rn32(rounded_odd(sums(a, weights)) * pow2(exponent))
