"""`matmul`: activations times e4m3 weights with a power of two per column; `matmul_scaled`: with any f32.

Source: facts/contract2.md sections 2 (parts), 3 (a deferred norm's statistic) and 4 (COLSCALE: y_n =
rn32(RN64(odd64(H, L) s_n)), s_n finite, 0 or >= 2^-126).
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import ShapedArray
from jaxtyping import Float16, Float32, Int32, Shaped, UInt8

from models.contract import deferred, parts
from models.contract.formats import F64, pow2
from models.contract.op import F16, F32, I32, U8, OpRecord, Results, check_operand, check_same, define

Codes = UInt8[Array, "k n"] | Float32[Array, "k n"]
STATISTIC = 3
"""The operand of both ops that is a statistic, where there is one."""


def matmul(
    a: Float16[Array, "batch k"],
    codes: Codes,
    exponent: Int32[Array, " n"],
    statistic: Float32[Array, "batch 1"] | None = None,
    *,
    starts: tuple[int, ...] = (),
) -> Float32[Array, "batch n"]:
    """Activations times e4m3 weights, with a scale 2^exponent per column.

    statistic: the product is multiplied by it row by row (`ops.rms_stat`). starts: first rows of contract
    parts and, last, K (`models.contract.parts.starts_of`): chips may then hold different parts.
    """
    return _bind(MATMUL, a, codes, exponent, statistic, starts)


def matmul_scaled(
    a: Float16[Array, "batch k"],
    codes: Codes,
    scale: Float32[Array, " n"],
    statistic: Float32[Array, "batch 1"] | None = None,
    *,
    starts: tuple[int, ...] = (),
) -> Float32[Array, "batch n"]:
    """Activations times e4m3 weights, with an f32 scale per column; the rest as `matmul`."""
    return _bind(MATMUL_SCALED, a, codes, scale, statistic, starts)


def decode(
    codes: Shaped[Array, "*experts k n"], exponent: Int32[Array, " heads_n"]
) -> Float32[Array, "*experts k n"]:
    """Weights as f32: e4m3 codes times 2^exponent per column (and head); f32 weights as they are."""
    if codes.dtype != jnp.uint8:
        return codes
    values = jax.lax.bitcast_convert_type(codes, jnp.float8_e4m3fn).astype(jnp.float32)
    return by_column(values, pow2(exponent).astype(jnp.float32))


def by_column(
    values: Float32[Array, "*experts k n"], scale: Float32[Array, " heads_n"]
) -> Float32[Array, "*experts k n"]:
    """A matrix (or a stack) times a scale per column; more scales are of the matrices of as many heads."""
    if values.ndim > 2:
        return values * scale
    n = values.shape[1]
    return (values.reshape(len(scale) // n, -1, n) * scale.reshape(-1, 1, n)).reshape(values.shape)


def _bind(
    op: OpRecord, a: Array, codes: Array, scale: Array, statistic: Array | None, starts: tuple[int, ...]
) -> Array:
    operands = (a, codes, scale) if statistic is None else (a, codes, scale, statistic)
    return op.bind(*operands, **({"starts": starts} if starts else {}))


def _shape(
    op: str,
    scale_of: Any,
    a: ShapedArray,
    codes: ShapedArray,
    scale: ShapedArray,
    statistic: ShapedArray | None = None,
    *,
    starts: tuple[int, ...],
) -> Results:
    """Of a [batch, k], codes [k, n], scale [n]: [batch, n]. F32 weights are for the plain step only."""
    check_operand(op, "a", a, 2, F16)
    check_operand(op, "codes", codes, 2, U8, F32)
    check_operand(op, "exponent" if scale_of is I32 else "scale", scale, 1, scale_of)
    check_same(op, "k of a and of codes", a.shape[1], codes.shape[0])
    check_same(op, "n of codes and of its scales", codes.shape[1], scale.shape[0])
    if statistic is not None:
        check_operand(op, "statistic", statistic, 2, F32)
        check_same(op, "shape of the statistic and (batch, 1)", statistic.shape, (a.shape[0], 1))
    if starts and (starts[0] != 0 or starts[-1] != a.shape[1] or sorted(set(starts)) != list(starts)):
        raise ValueError(f"{op}: starts {starts} are no parts of {a.shape[1]} rows, from 0 to {a.shape[1]}.")
    return (ShapedArray((a.shape[0], codes.shape[1]), F32),)


def _flops(a: ShapedArray, codes: ShapedArray, *others: ShapedArray, starts: tuple[int, ...] = ()) -> int:
    return 2 * a.shape[0] * math.prod(codes.shape)


def _contract(
    op: str,
    a: Array,
    codes: Array,
    scale: Array,
    statistic: Array | None = None,
    *,
    starts: tuple[int, ...] = (),
) -> Array:
    if codes.dtype != jnp.uint8:
        raise TypeError(
            f"{op}: weights are {codes.dtype}, the contract takes e4m3 codes (uint8). Use contract.plain."
        )
    factor = pow2(scale) if scale.dtype == jnp.int32 else scale.astype(F64)
    y = parts.product(a, codes, factor, starts)
    return y if statistic is None else deferred.scale_rows(y, statistic)


def _plain(
    a: Array, codes: Array, scale: Array, statistic: Array | None = None, *, starts: tuple[int, ...] = ()
) -> Array:
    """In f32 at once; of `matmul_scaled` the weights come scaled: see `contract.plain.plain_params`."""
    y = a @ (decode(codes, scale) if scale.dtype == jnp.int32 else codes)
    return y if statistic is None else y * statistic


def _record(name: str, scale_of: Any) -> OpRecord:
    def shape(*operands: ShapedArray, starts: tuple[int, ...] = ()) -> Results:
        return _shape(name, scale_of, *operands, starts=starts)

    return define(name=name, shape=shape, flops=_flops, contract=partial(_contract, name), plain=_plain)


MATMUL = _record("matmul", I32)
MATMUL_SCALED = _record("matmul_scaled", F32)
