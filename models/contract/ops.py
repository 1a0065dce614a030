"""The op vocabulary: one row per op - shape rule, FLOPs, bytes, contract function, plain f32 function.

Every op is a JAX primitive, so that it stands in a jaxpr as one named equation (`lpu_matmul`) with its
attributes as parameters. Its lowering is its contract function; `plain.py` takes the plain column.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jaxtyping import Float, Float16, Float32, Int32, UInt8

from models.contract import attention as kv_attention
from models.contract import float32, numerics
from models.contract.formats import decode_e4m3, rn8
from models.contract.shapes import (
    add_shape,
    argmax_shape,
    attention_shape,
    embed_shape,
    glu_shape,
    matmul_shape,
    rms_norm_shape,
    rope_shape,
    round8_shape,
    round16_shape,
)

Codes = UInt8[Array, "k n"] | Float32[Array, "k n"]
Cache = (
    Float[Array, "sequences tokens kv_heads head_dim"] | UInt8[Array, "sequences tokens kv_heads head_dim"]
)
CONTEXT_BITS = ((8192, 20), (32_768, 18), (131_072, 16))


def fraction_bits(context: int) -> int:
    """Bits of a softmax weight: the most for which a weighted sum over `context` tokens is exact in f64.

    Source: facts/numerics.md section 1.1 (2^(33-p) tokens).
    """
    for tokens, bits in CONTEXT_BITS:
        if context <= tokens:
            return bits
    raise ValueError(
        f"attention: context {context} is above {CONTEXT_BITS[-1][0]}, the longest whose sums are exact."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRow:
    """What is known of one op. All functions take the op's operands in order and its attributes by name.

    `shape`, `flops` and `bytes` see shapes and dtypes only; `shape` gives one `ShapedArray` per result.
    `bytes` counts what one use reads and writes: of tables the rows used, of a KV cache all of it, plus one
    token written.
    """

    name: str
    shape: Callable[..., tuple[ShapedArray, ...]]
    flops: Callable[..., int]
    bytes: Callable[..., int]
    contract: Callable[..., Any]
    plain: Callable[..., Any]
    primitive: Primitive


def _size(*arrays: ShapedArray) -> int:
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in arrays)


def _moved(shape: Callable[..., tuple[ShapedArray, ...]]) -> Callable[..., int]:
    """Bytes of an op that reads every operand and writes every result once."""
    return lambda *operands, **attributes: _size(*operands, *shape(*operands, **attributes))


def _per_element(flops: int) -> Callable[..., int]:
    return lambda x, *rest, **attributes: flops * math.prod(x.shape)


def _embed_contract(table: Array, tokens: Array) -> Array:
    return table[tokens].astype(jnp.float32)


def _rope_contract(x: Array, angles: Array, position: Array) -> Array:
    if angles.dtype != jnp.int32:
        raise TypeError(
            f"rope: angles are {angles.dtype}, the contract takes Q1.15 (int32). Use contract.plain."
        )
    return numerics.rn16(numerics.rope(x, angles[position][:, None]))


def _matmul_contract(a: Array, codes: Array, exponent: Array) -> Array:
    if codes.dtype != jnp.uint8:
        raise TypeError(
            f"matmul: weights are {codes.dtype}, the contract takes e4m3 codes (uint8). Use contract.plain."
        )
    return numerics.matmul(a, codes, exponent)


def _glu_contract(gate: Array, up: Array, *, activation: str) -> Array:
    return numerics.glu(gate, up, activation)


def _round8_contract(x: Array) -> Array:
    return decode_e4m3(rn8(x.astype(jnp.float32))).astype(jnp.float16)


def _add_contract(x: Array, y: Array) -> Array:
    return numerics.add32(x, y.astype(jnp.float32))


def _attention_flops(
    q: ShapedArray, k: ShapedArray, v: ShapedArray, cache: ShapedArray, *rest: Any, **_: Any
) -> int:
    return 4 * math.prod(q.shape) * cache.shape[1]


def _attention_bytes(
    q: ShapedArray,
    k: ShapedArray,
    v: ShapedArray,
    k_cache: ShapedArray,
    v_cache: ShapedArray,
    *rest: Any,
    **_: Any,
) -> int:
    token = (math.prod(k.shape) + math.prod(v.shape)) * k_cache.dtype.itemsize
    return 2 * _size(q) + _size(k, v, k_cache, v_cache) + token


def _row(
    name: str,
    shape: Callable[..., tuple[ShapedArray, ...]],
    flops: Callable[..., int],
    contract: Callable[..., Any],
    plain: Callable[..., Any],
    bytes: Callable[..., int] | None = None,
) -> OpRow:
    """The row with its primitive: abstract value by the shape rule, lowering by the contract function."""
    primitive = Primitive(f"lpu_{name}")
    primitive.multiple_results = True

    def results(*operands: Any, **attributes: Any) -> tuple[Any, ...]:
        out = contract(*operands, **attributes)
        return out if isinstance(out, tuple) else (out,)

    @functools.cache
    def compiled(attributes: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
        return jax.jit(functools.partial(primitive.bind, **dict(attributes)))

    primitive.def_abstract_eval(shape)
    primitive.def_impl(lambda *operands, **attributes: compiled(tuple(attributes.items()))(*operands))
    mlir.register_lowering(primitive, mlir.lower_fun(results, multiple_results=True))
    return OpRow(
        name=name,
        shape=shape,
        flops=flops,
        bytes=bytes or _moved(shape),
        contract=contract,
        plain=plain,
        primitive=primitive,
    )


OPS: dict[str, OpRow] = {
    row.name: row
    for row in (
        _row(
            "embed",
            embed_shape,
            lambda table, tokens: 0,
            _embed_contract,
            float32.embed,
            lambda table, tokens: (
                _size(tokens) + tokens.shape[0] * table.shape[1] * (table.dtype.itemsize + 4)
            ),
        ),
        _row(
            "matmul",
            matmul_shape,
            lambda a, codes, exponent: 2 * a.shape[0] * math.prod(codes.shape),
            _matmul_contract,
            float32.matmul,
        ),
        _row("rms_norm", rms_norm_shape, _per_element(4), numerics.rms_norm, float32.rms_norm),
        _row(
            "rope",
            rope_shape,
            _per_element(3),
            _rope_contract,
            float32.rope,
            lambda x, angles, position: (
                _size(x, position)
                + 2 * math.prod(x.shape)
                + 4 * position.shape[0] * angles.shape[1] * angles.shape[2]
            ),
        ),
        _row("round8", round8_shape, _per_element(0), _round8_contract, float32.round8),
        _row("round16", round16_shape, _per_element(0), numerics.rn16, float32.round16),
        _row(
            "attention",
            attention_shape,
            _attention_flops,
            kv_attention.attention,
            float32.attention,
            _attention_bytes,
        ),
        _row("glu", glu_shape, _per_element(6), _glu_contract, float32.glu),
        _row("add", add_shape, _per_element(1), _add_contract, float32.add),
        _row("argmax", argmax_shape, _per_element(1), numerics.argmax, float32.argmax),
    )
}


def op_of(primitive: Primitive) -> OpRow | None:
    """The row of a jaxpr equation's primitive, or None if it is not of the vocabulary."""
    row = OPS.get(primitive.name.removeprefix("lpu_"))
    return row if row is not None and row.primitive is primitive else None


def _bind(name: str, *operands: Array, **attributes: Any) -> Any:
    out = OPS[name].primitive.bind(*operands, **attributes)
    return out[0] if len(out) == 1 else tuple(out)


def embed(
    table: Float[Array, "vocab hidden"], tokens: Int32[Array, " batch"]
) -> Float32[Array, "batch hidden"]:
    """The table's fp16 rows of the tokens, as f32."""
    return _bind("embed", table, tokens)


def matmul(
    a: Float16[Array, "batch k"], codes: Codes, exponent: Int32[Array, " n"]
) -> Float32[Array, "batch n"]:
    """Activations times e4m3 weights, with a scale 2^exponent per column."""
    return _bind("matmul", a, codes, exponent)


def rms_norm(
    x: Float32[Array, "*batch width"], gain: Float32[Array, " width"], *, eps: float
) -> Float16[Array, "*batch width"]:
    """RMS norm over the last axis: of [batch, hidden], or per head of [batch, heads, head_dim]."""
    return _bind("rms_norm", x, gain, eps=eps)


def rope(
    x: Float[Array, "batch heads head_dim"],
    angles: Int32[Array, "context 2 pairs"] | Float32[Array, "context 2 pairs"],
    position: Int32[Array, " batch"],
) -> Float16[Array, "batch heads head_dim"]:
    """Half-split rotary embedding at the position, rounded to fp16; angles are cos and sin in Q1.15."""
    return _bind("rope", x, angles, position)


def round16(x: Float32[Array, "*shape"]) -> Float16[Array, "*shape"]:
    """The values in fp16."""
    return _bind("round16", x)


def round8(x: Float16[Array, "*shape"]) -> Float16[Array, "*shape"]:
    """The values rounded to e4m3, in fp16, which holds every one of them."""
    return _bind("round8", x)


def attention(
    q: Float16[Array, "batch heads head_dim"],
    k: Float16[Array, "batch kv_heads head_dim"],
    v: Float16[Array, "batch kv_heads head_dim"],
    k_cache: Cache,
    v_cache: Cache,
    position: Int32[Array, " batch"],
    *,
    fraction_bits: int,
) -> tuple[Float16[Array, "batch lanes"], Cache, Cache]:
    """Append k and v to the caches at the position, then attend to all tokens up to it.

    The sequences of the caches share the batch rows in equal runs: one row each to decode, a chunk of a
    prompt where there are more rows than sequences. Positions of one sequence ascend.
    """
    return _bind("attention", q, k, v, k_cache, v_cache, position, fraction_bits=fraction_bits)


def glu(
    gate: Float32[Array, "*shape"], up: Float32[Array, "*shape"], *, activation: str
) -> Float16[Array, "*shape"]:
    """Activation ("silu" or "gelu") of the gate, times up."""
    return _bind("glu", gate, up, activation=activation)


def add(x: Float32[Array, "*shape"], y: Float[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The residual sum."""
    return _bind("add", x, y)


def argmax(logits: Float32[Array, "batch vocab"]) -> Int32[Array, " batch"]:
    """The token with the largest logit, the lowest of equals."""
    return _bind("argmax", logits)
