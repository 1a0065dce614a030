"""The shape rule of each op: operand shapes and dtypes to result shapes, or a ValueError with both numbers.

Where a rule also admits f32 in place of codes or of a cache, that is for `models/contract/plain.py` only.
"""

from typing import Any

import jax.numpy as jnp
from jax.core import ShapedArray

F16, F32, I32, U8 = (jnp.dtype(name) for name in ("float16", "float32", "int32", "uint8"))
Results = tuple[ShapedArray, ...]


def _same(op: str, what: str, left: Any, right: Any) -> None:
    if left != right:
        raise ValueError(f"{op}: {what}: {left} and {right} differ.")


def _operand(op: str, name: str, array: ShapedArray, rank: int | None, *dtypes: Any) -> None:
    if rank is not None and len(array.shape) != rank:
        raise ValueError(f"{op}: {name} has {len(array.shape)} axes, it takes {rank}.")
    if array.dtype not in dtypes:
        raise ValueError(f"{op}: {name} is {array.dtype}, it takes {' or '.join(str(d) for d in dtypes)}.")


def embed_shape(table: ShapedArray, tokens: ShapedArray) -> Results:
    """Of table [vocab, hidden], tokens [batch]: [batch, hidden]."""
    _operand("embed", "table", table, 2, F16, F32)
    _operand("embed", "tokens", tokens, 1, I32)
    return (ShapedArray((tokens.shape[0], table.shape[1]), F32),)


def matmul_shape(a: ShapedArray, codes: ShapedArray, exponent: ShapedArray) -> Results:
    """Of a [batch, k], codes [k, n], exponent [n]: [batch, n]."""
    _operand("matmul", "a", a, 2, F16)
    _operand("matmul", "codes", codes, 2, U8, F32)
    _operand("matmul", "exponent", exponent, 1, I32)
    _same("matmul", "k of a and of codes", a.shape[1], codes.shape[0])
    _same("matmul", "n of codes and of exponent", codes.shape[1], exponent.shape[0])
    return (ShapedArray((a.shape[0], codes.shape[1]), F32),)


def rms_norm_shape(x: ShapedArray, gain: ShapedArray, *, eps: float) -> Results:
    """Of x [..., width], gain [width]: x in fp16."""
    _operand("rms_norm", "x", x, None, F32)
    _operand("rms_norm", "gain", gain, 1, F32)
    _same("rms_norm", "width of x and of gain", x.shape[-1], gain.shape[0])
    if x.shape[-1] > 32_768:
        raise ValueError(f"rms_norm: width {x.shape[-1]} is above 32768, the widest exact sum of squares.")
    return (ShapedArray(x.shape, F16),)


def rope_shape(x: ShapedArray, angles: ShapedArray, position: ShapedArray) -> Results:
    """Of x [batch, heads, head_dim], angles [context, 2, head_dim / 2], position [batch]: x in fp16."""
    _operand("rope", "x", x, 3, F16, F32)
    _operand("rope", "angles", angles, 3, I32, F32)
    _operand("rope", "position", position, 1, I32)
    _same("rope", "batch of x and of position", x.shape[0], position.shape[0])
    _same("rope", "angles per position and head_dim of x", angles.shape[1:], (2, x.shape[2] // 2))
    return (ShapedArray(x.shape, F16),)


def round16_shape(x: ShapedArray) -> Results:
    """Of x [...]: x in fp16."""
    _operand("round16", "x", x, None, F32)
    return (ShapedArray(x.shape, F16),)


def round8_shape(x: ShapedArray) -> Results:
    """Of x [...] in fp16: the same."""
    _operand("round8", "x", x, None, F16)
    return (ShapedArray(x.shape, F16),)


def attention_shape(
    q: ShapedArray,
    k: ShapedArray,
    v: ShapedArray,
    k_cache: ShapedArray,
    v_cache: ShapedArray,
    position: ShapedArray,
    *,
    fraction_bits: int,
) -> Results:
    """Of q [rows, heads, d], k, v [rows, kv, d], caches [sequences, tokens, kv, d]: [rows, lanes], caches.

    Every sequence of the caches gets an equal run of the rows.
    """
    for name, array in (("q", q), ("k", k), ("v", v)):
        _operand("attention", name, array, 3, F16)
    for name, array in (("k_cache", k_cache), ("v_cache", v_cache)):
        _operand("attention", name, array, 4, F16, U8, F32)
    _operand("attention", "position", position, 1, I32)
    batch, heads, head_dim = q.shape
    sequences = k_cache.shape[0]
    _same("attention", "shapes of k and v", k.shape, v.shape)
    _same("attention", "caches of k and v", (k_cache.shape, k_cache.dtype), (v_cache.shape, v_cache.dtype))
    _same("attention", "batch and head_dim of q and of k", (batch, head_dim), (k.shape[0], k.shape[2]))
    _same("attention", "k and one token of its cache", k.shape[1:], k_cache.shape[2:])
    _same("attention", "batch of q and of position", batch, position.shape[0])
    if sequences < 1 or batch % sequences:
        raise ValueError(
            f"attention: {batch} rows are no equal share for {sequences} sequences of the cache."
        )
    if heads % k.shape[1]:
        raise ValueError(f"attention: {heads} heads are no multiple of {k.shape[1]} kv heads.")
    if k_cache.shape[1] > 1 << (33 - fraction_bits):
        raise ValueError(
            f"attention: {k_cache.shape[1]} tokens with {fraction_bits} fraction bits; "
            f"the sum is exact up to {1 << (33 - fraction_bits)}."
        )
    out = ShapedArray((batch, heads * head_dim), F16)
    return out, ShapedArray(k_cache.shape, k_cache.dtype), ShapedArray(v_cache.shape, v_cache.dtype)


def glu_shape(gate: ShapedArray, up: ShapedArray, *, activation: str) -> Results:
    """Of gate [...], up [...]: the same in fp16."""
    _operand("glu", "gate", gate, None, F32)
    _operand("glu", "up", up, None, F32)
    _same("glu", "shapes of gate and up", gate.shape, up.shape)
    if activation not in ("silu", "gelu"):
        raise ValueError(f"glu: activation {activation!r} is unknown, it takes silu or gelu.")
    return (ShapedArray(gate.shape, F16),)


def add_shape(x: ShapedArray, y: ShapedArray) -> Results:
    """Of x [...], y [...], which may be fp16: the shape of both, f32."""
    _operand("add", "x", x, None, F32)
    _operand("add", "y", y, None, F32, F16)
    _same("add", "shapes of x and y", x.shape, y.shape)
    return (ShapedArray(x.shape, F32),)


def argmax_shape(logits: ShapedArray) -> Results:
    """Of logits [batch, vocab]: [batch]."""
    _operand("argmax", "logits", logits, 2, F32)
    return (ShapedArray(logits.shape[:1], I32),)
