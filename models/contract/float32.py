"""The ops of the vocabulary in plain f32 JAX: the baseline to compare speed and values with.

Weights may be f32 [k, n] in place of codes (then already scaled); activations are f32 wherever the contract
says fp16; caches are f32.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32, Int32, Shaped

from models.contract.formats import pow2

Batch = Int32[Array, " batch"]
Cache = Float32[Array, "sequences tokens kv_heads head_dim"]
ACTIVATIONS = {"silu": jax.nn.silu, "gelu": lambda x: jax.nn.gelu(x, approximate=True)}


def embed(table: Float[Array, "vocab hidden"], tokens: Batch) -> Float32[Array, "batch hidden"]:
    """Rows of the table."""
    return table[tokens].astype(jnp.float32)


def decode(codes: Shaped[Array, "k n"], exponent: Int32[Array, " n"]) -> Float32[Array, "k n"]:
    """Weights as f32: e4m3 codes times 2^exponent per column; f32 weights as they are."""
    if codes.dtype != jnp.uint8:
        return codes
    values = jax.lax.bitcast_convert_type(codes, jnp.float8_e4m3fn).astype(jnp.float32)
    return values * pow2(exponent).astype(jnp.float32)


def matmul(
    a: Float32[Array, "batch k"], codes: Shaped[Array, "k n"], exponent: Int32[Array, " n"]
) -> Float32[Array, "batch n"]:
    """One f32 matrix product."""
    return a @ decode(codes, exponent)


def rms_norm(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"], *, eps: float
) -> Float32[Array, "*batch width"]:
    """The vector over its root mean square, times the gain."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + jnp.float32(eps)) * gain


def rope(
    x: Float32[Array, "batch heads head_dim"],
    angles: Int32[Array, "context 2 pairs"] | Float32[Array, "context 2 pairs"],
    position: Batch,
) -> Float32[Array, "batch heads head_dim"]:
    """Half-split rotary embedding; angles are cos and sin as f32, or in Q1.15."""
    a, b = jnp.split(x, 2, axis=-1)
    turn = angles[position]
    if turn.dtype == jnp.int32:
        turn = turn.astype(jnp.float32) * jnp.float32(2**-15)
    c, s = turn[:, None, 0], turn[:, None, 1]
    return jnp.concatenate([a * c - b * s, b * c + a * s], axis=-1)


def round16(x: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Nothing: f32 stays f32."""
    return x


def round8(x: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Nothing: f32 stays f32."""
    return x


def attention(
    q: Float32[Array, "batch heads head_dim"],
    k: Float32[Array, "batch kv_heads head_dim"],
    v: Float32[Array, "batch kv_heads head_dim"],
    k_cache: Cache,
    v_cache: Cache,
    position: Batch,
    *,
    fraction_bits: int,
) -> tuple[Float32[Array, "batch lanes"], Cache, Cache]:
    """Append, then softmax attention to all tokens up to the position; rows in equal runs per sequence."""
    sequences, tokens, kv_heads, head_dim = k_cache.shape
    share = len(q) // sequences
    row = jnp.arange(len(q)) // share
    k_cache, v_cache = k_cache.at[row, position].set(k), v_cache.at[row, position].set(v)
    grouped = q.reshape(sequences, share, kv_heads, -1, head_dim)
    scores = jnp.einsum("srhgd,sthd->srhgt", grouped, k_cache) * jnp.float32(head_dim**-0.5)
    seen = jnp.arange(tokens) <= position.reshape(sequences, share, 1)
    weights = jax.nn.softmax(jnp.where(seen[:, :, None, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("srhgt,sthd->srhgd", weights, v_cache).reshape(len(q), -1), k_cache, v_cache


def glu(
    gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"], *, activation: str
) -> Float32[Array, "*shape"]:
    """Activation of the gate, times up."""
    return ACTIVATIONS[activation](gate) * up


def add(x: Float32[Array, "*shape"], y: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The residual sum."""
    return x + y


def argmax(logits: Float32[Array, "batch vocab"]) -> Batch:
    """The token with the largest logit."""
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
