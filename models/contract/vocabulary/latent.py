"""Latent attention in its absorbed form: `head_matmul`, a matrix of each head, and `latent_attention`.

Queries go into the space of the cache by one product a head, values come out of it by another; the cache
holds a latent and a turned key of each token, whatever the number of heads. Source: facts/contract2.md
section 6 (MLA); the exponents of a product may differ from head to head.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float, Float16, Float32, Int32, Shaped, UInt8

from models.contract import latent_attention as latent_form
from models.contract.formats import odd64, pow2, rn32
from models.contract.numerics import wide
from models.contract.op import F16, F32, I32, U8, Results, bytes_of, check_operand, check_same, define
from models.contract.vocabulary.attention import LARGEST_BLOCK
from models.contract.vocabulary.matmul import decode
from models.version import BLOCK

TurnedCache = Float[Array, "sequences tokens 1 turned"] | UInt8[Array, "sequences tokens 1 turned"]
LatentCache = Float[Array, "sequences tokens 1 latent"] | UInt8[Array, "sequences tokens 1 latent"]
PlainTurned = Float32[Array, "sequences tokens 1 turned"]
PlainLatent = Float32[Array, "sequences tokens 1 latent"]
MOST_LANES = 8192  # of a key, which one exact sum takes


def head_matmul(
    a: Float16[Array, "batch heads k"],
    codes: UInt8[Array, "heads_k n"] | Float32[Array, "heads_k n"],
    scale: Int32[Array, " heads_n"] | Float32[Array, " heads_n"],
) -> Float32[Array, "batch heads n"]:
    """Each head times its own e4m3 matrix, with a scale 2^exponent, or any f32, per head and column.

    The matrices of all heads lie one below the other in `codes`, their scales one behind the other.
    """
    return HEAD_MATMUL.bind(a, codes, scale)


def latent_attention(
    q_latent: Float16[Array, "batch heads latent"],
    q_turned: Float16[Array, "batch heads turned"],
    k_turned: Float16[Array, "batch 1 turned"],
    latent: Float16[Array, "batch 1 latent"],
    k_cache: TurnedCache,
    v_cache: LatentCache,
    position: Int32[Array, " batch"],
    *,
    sigma: float,
    block: int = BLOCK,
) -> tuple[Float16[Array, "batch heads latent"], TurnedCache, LatentCache]:
    """Append a turned key and a latent at the position, then all heads attend to all tokens up to it.

    k_cache: the turned keys. v_cache: the latents, which are the rest of the keys and the values. sigma: by
    what products are multiplied. Rows, sequences and block as in `ops.attention`.
    """
    return LATENT_ATTENTION.bind(
        q_latent, q_turned, k_turned, latent, k_cache, v_cache, position, sigma=sigma, block=block
    )


def _product(a: ShapedArray, codes: ShapedArray, scale: ShapedArray) -> Results:
    """Of a [batch, heads, k], codes [heads k, n], scale [heads n]: [batch, heads, n]."""
    check_operand("head_matmul", "a", a, 3, F16)
    check_operand("head_matmul", "codes", codes, 2, U8, F32)
    check_operand("head_matmul", "scale", scale, 1, I32, F32)
    heads, k = a.shape[1:]
    n = codes.shape[1]
    check_same("head_matmul", "heads times k of a and rows of codes", heads * k, codes.shape[0])
    check_same("head_matmul", "heads times columns of codes and its scales", heads * n, scale.shape[0])
    return (ShapedArray((a.shape[0], heads, n), F32),)


def _product_flops(a: ShapedArray, codes: ShapedArray, scale: ShapedArray) -> int:
    return 2 * a.shape[0] * math.prod(codes.shape)


def _by_head(x: Shaped[Array, "heads_k n"], heads: int) -> Shaped[Array, "heads k n"]:
    return x.reshape(heads, -1, x.shape[-1])


def _multiply(a: Array, codes: Array, scale: Array) -> Array:
    if codes.dtype != jnp.uint8:
        raise TypeError(
            f"head_matmul: weights are {codes.dtype}, the contract takes e4m3 codes (uint8). "
            "Use contract.plain."
        )
    heads = a.shape[1]
    factor = (pow2(scale) if scale.dtype == jnp.int32 else scale.astype(jnp.float64)).reshape(heads, -1)
    part = jax.vmap(wide, in_axes=(1, 0), out_axes=1)(a, _by_head(codes, heads))
    return rn32(odd64(part.high, part.low) * factor)


def _multiply_plain(a: Array, codes: Array, scale: Array) -> Array:
    heads = a.shape[1]
    matrix = decode(codes, scale) if scale.dtype == jnp.int32 else codes
    return jnp.einsum("bhk,hkn->bhn", a, _by_head(matrix, heads))


def _shape(
    q_latent: ShapedArray,
    q_turned: ShapedArray,
    k_turned: ShapedArray,
    latent: ShapedArray,
    k_cache: ShapedArray,
    v_cache: ShapedArray,
    position: ShapedArray,
    *,
    sigma: float,
    block: int,
) -> Results:
    """Queries [rows, heads, lanes] twice, key and latent [rows, 1, lanes]: [rows, heads, latent], caches."""
    op = "latent_attention"
    given = (("q_latent", q_latent), ("q_turned", q_turned), ("k_turned", k_turned), ("latent", latent))
    for name, array in given:
        check_operand(op, name, array, 3, F16)
    for name, array in (("k_cache", k_cache), ("v_cache", v_cache)):
        check_operand(op, name, array, 4, F16, U8, F32)
    check_operand(op, "position", position, 1, I32)
    rows, heads, lanes = q_latent.shape
    turned = q_turned.shape[2]
    check_same(op, "rows and heads of both parts of q", (rows, heads), q_turned.shape[:2])
    check_same(op, "k_turned and (rows, 1, lanes of q_turned)", k_turned.shape, (rows, 1, turned))
    check_same(op, "latent and (rows, 1, lanes of q_latent)", latent.shape, (rows, 1, lanes))
    check_same(op, "k_turned and one token of its cache", k_turned.shape[1:], k_cache.shape[2:])
    check_same(op, "latent and one token of its cache", latent.shape[1:], v_cache.shape[2:])
    check_same(
        op,
        "sequences, tokens and dtype of the caches",
        (*k_cache.shape[:2], k_cache.dtype),
        (*v_cache.shape[:2], v_cache.dtype),
    )
    check_same(op, "rows of q and of position", rows, position.shape[0])
    sequences = k_cache.shape[0]
    if sequences < 1 or rows % sequences:
        raise ValueError(f"{op}: {rows} rows are no equal share for {sequences} sequences of the cache.")
    if lanes + turned > MOST_LANES:
        raise ValueError(f"{op}: a key has {lanes} + {turned} lanes, an exact sum takes {MOST_LANES}.")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"{op}: sigma is {sigma}, it must be finite and above 0.")
    if not 1 <= block <= LARGEST_BLOCK:
        raise ValueError(f"{op}: block is {block}, it takes 1 to {LARGEST_BLOCK} tokens.")
    caches = ShapedArray(k_cache.shape, k_cache.dtype), ShapedArray(v_cache.shape, v_cache.dtype)
    return ShapedArray((rows, heads, lanes), F16), *caches


def _flops(
    q_latent: ShapedArray,
    q_turned: ShapedArray,
    k_turned: ShapedArray,
    latent: ShapedArray,
    cache: ShapedArray,
    *rest: Any,
    **_: Any,
) -> int:
    lanes = 2 * q_latent.shape[-1] + q_turned.shape[-1]  # of a key and a value
    return 2 * q_latent.shape[0] * math.prod(q_latent.shape[1:-1]) * lanes * cache.shape[1]


def _bytes(
    q_latent: ShapedArray,
    q_turned: ShapedArray,
    k_turned: ShapedArray,
    latent: ShapedArray,
    k_cache: ShapedArray,
    v_cache: ShapedArray,
    *rest: Any,
    **_: Any,
) -> int:
    tokens = (math.prod(k_turned.shape) + math.prod(latent.shape)) * k_cache.dtype.itemsize
    return 2 * bytes_of(q_latent) + bytes_of(q_turned, k_turned, latent, k_cache, v_cache) + tokens


def _plain(
    q_latent: Float32[Array, "batch heads latent"],
    q_turned: Float32[Array, "batch heads turned"],
    k_turned: Float32[Array, "batch 1 turned"],
    latent: Float32[Array, "batch 1 latent"],
    k_cache: PlainTurned,
    v_cache: PlainLatent,
    position: Int32[Array, " batch"],
    *,
    sigma: float,
    block: int,
) -> tuple[Float32[Array, "batch heads latent"], PlainTurned, PlainLatent]:
    """Append, then softmax attention to all tokens up to the position; rows in equal runs per sequence."""
    sequences, tokens = k_cache.shape[:2]
    share = len(q_latent) // sequences
    row = jnp.arange(len(q_latent)) // share
    k_cache, v_cache = k_cache.at[row, position].set(k_turned), v_cache.at[row, position].set(latent)
    of_latent, of_turned = (q.reshape(sequences, share, *q.shape[1:]) for q in (q_latent, q_turned))
    scores = jnp.einsum("srhd,std->srht", of_latent, v_cache[:, :, 0])
    scores += jnp.einsum("srhd,std->srht", of_turned, k_cache[:, :, 0])
    seen = jnp.arange(tokens) <= position.reshape(sequences, share, 1)
    masked = jnp.where(seen[:, :, None], scores * jnp.float32(sigma), -jnp.inf)
    weights = jax.nn.softmax(masked, axis=-1)
    out = jnp.einsum("srht,std->srhd", weights, v_cache[:, :, 0])
    return out.reshape(q_latent.shape), k_cache, v_cache


HEAD_MATMUL = define(
    name="head_matmul", shape=_product, flops=_product_flops, contract=_multiply, plain=_multiply_plain
)
LATENT_ATTENTION = define(
    name="latent_attention",
    shape=_shape,
    flops=_flops,
    bytes=_bytes,
    contract=latent_form.attention,
    plain=_plain,
)
