"""MXFP4 weights as e4m3 codes with an exponent per column: exact while a column's blocks spread 14 binades.

Source: facts/contract2.md section 4. A weight is e2m1 (a nibble, bit 3 the sign) times 2^(byte - 127), one
byte (E8M0) per 32 rows.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int32, Int64, UInt8

from models.contract.formats import F32, F64, I64, NumericsError, decode_e4m3, pow2, rn8

ROWS = 32  # of a block
NO_NUMBER = 255  # the byte of E8M0 that is none
_MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_TOP = 6  # binades that the largest block of a column lies above the column's exponent: 6 x 2^6 = 384 <= 448
_LEAST = -20  # binades at which every magnitude rounds to 0


class Converted(NamedTuple):
    """What `matmul` takes, and how many weights changed their value: reported, and refused if strict."""

    codes: UInt8[Array, "k n"]
    exponent: Int32[Array, " n"]
    changed: Int64[Array, ""]


def from_mxfp4(nibbles: UInt8[Array, "k n"], scales: UInt8[Array, "blocks n"]) -> Converted:
    """Codes of e4m3 with e_n = D - 6, D the largest exponent of a block of the column that is not all zeros.

    Raises ValueError unless there is a scale for every 32 rows.
    """
    k, n = nibbles.shape
    if k % ROWS or scales.shape != (k // ROWS, n):
        raise ValueError(f"mxfp4: scales are {scales.shape}, weights {k} x {n} need one per {ROWS} rows.")
    blocks = nibbles.reshape(-1, ROWS, n)
    magnitude = jnp.asarray(_MAGNITUDES)[blocks & 7]
    value = jnp.where(blocks & 8 != 0, -magnitude, magnitude)
    power = scales.astype(jnp.int32) - 127
    used = jnp.any(magnitude != 0, axis=1)
    top = jnp.max(jnp.where(used, power, -128), axis=0)
    exponent = jnp.where(jnp.any(used, axis=0), top - _TOP, 0)
    wanted = value.astype(F64) * pow2(jnp.clip(power - exponent, _LEAST, _TOP))[:, None]
    codes = rn8(wanted.astype(F32))
    changed = jnp.sum(decode_e4m3(codes) != wanted, dtype=I64)
    return Converted(codes.reshape(k, n), exponent, changed)


def refuse_scales(name: str, scales: UInt8[np.ndarray, "blocks n"]) -> None:
    """Raise NumericsError for a scale that is no number."""
    if wrong := int(np.sum(scales == NO_NUMBER)):
        raise NumericsError(
            f"{name}: {wrong} of {scales.size} MXFP4 scales are byte 255, which is no number."
        )


def refuse_changes(name: str, changed: int, weights: int) -> None:
    """Raise NumericsError if a weight changed its value: what a strict conversion asks for."""
    if changed:
        raise NumericsError(
            f"{name}: {changed} of {weights} MXFP4 weights are not exact in e4m3: the blocks of a column "
            "spread more than 14 binades. Allow changed weights, or keep this matrix out of e4m3."
        )
