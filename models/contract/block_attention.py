"""Attention in blocks of tokens without a maximum over the context: integers in a block, a fixed tree across.

A token weighs 2^(-Y / 2^24) with an integer Y of its score alone. A block's leaf has an exponent `a`, the sum
`l` of its weights and the weighted sum `o` of its values over 2^a; merging two nodes shifts the smaller one,
which is exact but for one rounding of each. Blocks begin at absolute positions, so decode, any chunk of a
prompt and any aligned share of the context give the same bits: one node crosses chips, 4 bytes a lane and 12
a head. Source: facts/contract2.md section 6.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float16, Float32, Float64, Int, Int32, Int64, UInt8

from models.contract import dot16
from models.contract.formats import (
    F64,
    I64,
    NumericsError,
    decode_e4m3,
    halves,
    odd64,
    pow2,
    rn16,
    rn32,
)
from models.contract.formats import add32 as add32
from models.contract.functions.exponential import LOG2E, mantissa, shift
from models.contract.tree import tree
from models.version import BLOCK

LARGEST_SCORE = 2.0**30
_ABSENT = -(2**31)  # below the exponent of any score that is legal
_FAR = 63  # binades below which a node adds nothing

Keys = Float16[Array, "*batch tokens head_dim"] | UInt8[Array, "*batch tokens head_dim"]
Values = Float16[Array, "*batch tokens lanes"] | UInt8[Array, "*batch tokens lanes"]


class Attended(NamedTuple):
    """Part of a context as attention sees it: the sums are l 2^a and o 2^a. One without tokens is absent."""

    a: Int32[Array, "*heads"]
    l: Float64[Array, "*heads"]  # noqa: E741 - the contract's letters
    o: Float32[Array, "*heads lanes"]


def weight_bits(block: int) -> int:
    """Bits of a weight: min(24, 33 - ceil(log2 B)), so that a block's sums are exact."""
    return min(24, 33 - (block - 1).bit_length())


def scores(
    q: Float16[Array, "*batch group head_dim"], k: Keys, sigma: float | Float64[Array, ""], exponent: int = 0
) -> Float32[Array, "*batch group tokens"]:
    """Products q k times sigma in f64, exact until then; e4m3 keys are code 2^exponent."""
    if k.dtype == jnp.uint8:
        high, low = halves(q)
        keys = jnp.swapaxes(decode_e4m3(k), -1, -2)
        return rn32(odd64(high @ keys, low @ keys) * sigma * 2.0**exponent)
    return rn32(dot16.rounded_odd(dot16.sums(q, jnp.swapaxes(k, -1, -2))) * sigma)


def seen(
    query: Int32[Array, "*rows"],
    key: Int32[Array, " tokens"],
    *,
    causal: bool = True,
    window: int = 0,
    chunk: int = 0,
) -> Bool[Array, "*rows tokens"]:
    """Which keys a query at its position attends to: up to itself, in its window, in its chunk; 0 is none."""
    i = query[..., None]
    found = key <= i if causal else jnp.ones((*query.shape, len(key)), bool)
    if window:
        found &= i - key < window
    if chunk:
        found &= key // chunk == i // chunk
    return found


def exponents(score: Float32[Array, "*shape"]) -> Int64[Array, "*shape"]:
    """Y of a score: its weight is 2^(-Y / 2^24)."""
    return -jnp.round(score.astype(F64) * LOG2E).astype(I64)


def leaf_exponent(
    y: Int64[Array, "*heads tokens"], see: Bool[Array, "*heads tokens"]
) -> Int32[Array, "*heads"]:
    """`a` of a block, or of any share of it: the largest power of two of a weight that is seen."""
    return jnp.max(jnp.where(see, -(y >> 24), _ABSENT), axis=-1).astype(jnp.int32)


def weights(
    y: Int64[Array, "*heads tokens"], see: Bool[Array, "*heads tokens"], a: Int32[Array, "*heads"], p: int
) -> Int64[Array, "*heads tokens"]:
    """Integer weights over 2^(a - p); 0 of a token that is not seen."""
    h = (y >> 24) + a[..., None].astype(I64) + 30 - p
    return jnp.where(see, shift(mantissa(y & 0xFFFFFF), h), 0)


def weighted(
    w: Int[Array, "*heads tokens"], v: Values
) -> tuple[Float64[Array, "*heads lanes"], Float64[Array, "*heads lanes"]]:
    """Exact sums of weights times values, of high and of low halves; e4m3 values are codes, without low."""
    rows = w.astype(F64)
    if v.dtype == jnp.uint8:
        high = rows @ decode_e4m3(v)
        return high, jnp.zeros_like(high)
    high, low = halves(v)
    return rows @ high, rows @ low


def leaf(
    y: Int64[Array, "*heads tokens"], see: Bool[Array, "*heads tokens"], v: Values, p: int, exponent: int = 0
) -> Attended:
    """A block's node: exact integer sums, rounded to f32 once a lane."""
    a = leaf_exponent(y, see)
    return Attended(a, *over_bits(weights(y, see, a, p), v, p, exponent))


def over_bits(
    w: Int[Array, "*heads tokens"], v: Values, p: int, exponent: int = 0
) -> tuple[Float64[Array, "*heads"], Float32[Array, "*heads lanes"]]:
    """`l` and `o` of a block by its integer weights of p bits."""
    high, low = weighted(w, v)
    total = jnp.sum(w, axis=-1).astype(F64) * 2.0**-p
    return total, rn32(odd64(high, low) * 2.0 ** (exponent - p))


def merge(x: Attended, y: Attended) -> Attended:
    """The node of two neighbours, each shifted to the larger exponent."""
    a = jnp.maximum(x.a, y.a)
    dx, dy = (a.astype(I64) - part.a for part in (x, y))
    total = _shifted(x.l, dx) + _shifted(y.l, dy)
    return Attended(a, total, add32(rn32(_lanes(x, dx)), rn32(_lanes(y, dy))))


def _shifted(v: Float64[Array, "*#shape"], d: Int64[Array, "*#shape"]) -> Float64[Array, "..."]:
    return jnp.where(d > _FAR, 0.0, v * pow2(-jnp.minimum(d, _FAR)))


def _lanes(node: Attended, d: Int64[Array, "*heads"]) -> Float64[Array, "*heads lanes"]:
    return _shifted(node.o.astype(F64), d[..., None])


def absent(like: Attended) -> Attended:
    """The node of no token: merging it changes nothing."""
    return Attended(jnp.full_like(like.a, _ABSENT), jnp.zeros_like(like.l), jnp.zeros_like(like.o))


def root(leaves: Attended) -> Attended:
    """The node of all blocks, which lie along the first axis."""
    return tree(leaves, merge)


def with_sink(node: Attended, logit: Float32[Array, "*heads"], p: int) -> Attended:
    """The node after a logit that adds to the denominator alone."""
    y = exponents(logit)
    weight = shift(mantissa(y & 0xFFFFFF), jnp.asarray(30 - p)).astype(F64) * 2.0**-p
    return merge(node, Attended((-(y >> 24)).astype(jnp.int32), weight, jnp.zeros_like(node.o)))


def quotient(node: Attended) -> Float32[Array, "*heads lanes"]:
    """The weighted mean of the values, in f32; `out` rounds it to fp16."""
    return rn32(node.o.astype(F64) / node.l[..., None])


def out(node: Attended) -> Float16[Array, "*heads lanes"]:
    """The weighted mean of the values."""
    return rn16(quotient(node))


def attend(
    score: Float32[Array, "*heads tokens"],
    see: Bool[Array, "*heads tokens"],
    v: Values,
    *,
    block: int = BLOCK,
    sink: Float32[Array, "*heads"] | None = None,
    exponent: int = 0,
) -> Attended:
    """The root of a whole context whose first token has position 0 (or a multiple of the block).

    Capped scores come in capped. The tokens may end anywhere in a block: what is missing is not seen.
    """
    p = weight_bits(block)
    tokens = score.shape[-1]
    padded = -tokens % block

    def blocks(x: Array, axis: int) -> Array:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, padded)
        cut = jnp.pad(x, widths)
        shape = (*cut.shape[:axis], -1, block, *cut.shape[axis + 1 :])
        return jnp.moveaxis(cut.reshape(shape), axis, 0)

    y = blocks(exponents(score), score.ndim - 1)
    leaves = leaf(y, blocks(see, see.ndim - 1), blocks(v, v.ndim - 2), p, exponent)
    node = root(leaves)
    return node if sink is None else with_sink(node, sink, p)


def refuse_scores(
    score: Float32[np.ndarray, "*heads tokens"], see: Bool[np.ndarray, "*heads tokens"]
) -> None:
    """Raise NumericsError for a score beyond 2^30, or a query that sees no token at all."""
    if wrong := int(np.sum(~(np.abs(score) <= LARGEST_SCORE) & see)):
        raise NumericsError(
            f"attention: {wrong} scores are beyond +-2^30, which has no weight. Scale q or k down."
        )
    if blind := int(np.sum(~np.any(see, axis=-1))):
        raise NumericsError(
            f"attention: {blind} queries see no token: window, chunk and position exclude all."
        )
