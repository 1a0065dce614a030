"""Functions by integer tables: value, slope and curvature at each step, and two multiplications between.

The tables are the contract, shipped as `tables.npz`; each is held against the sha1 of its bytes when loaded.
Source: facts/contract2.md section 1, QUAD.
"""

import functools
import hashlib
import io
import pkgutil
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int64

from models.contract.formats import NumericsError

Name = Literal["log1", "tanh", "phi"]
SHA1: dict[Name, str] = {
    "log1": "2a09027efc02a6c37a31c79242dad2c8cbf0eddf",
    "tanh": "257d90a5b00fd31eea053f6bb0ce792dd6e6e114",
    "phi": "14b399f8fef28622a6998806df18763d3b3b1238",
}
"""Of little-endian int64 [3, rows]. log1: 2^30 ln(1+u)/u, 512 rows of 2^-9; tanh: 2^30 tanh(x)/x, 512 rows of
2^-9; phi: 2^40 erfc(x / sqrt 2) / 2, 2048 rows of 2^-8."""


@functools.cache
def table(name: Name) -> Int64[np.ndarray, "3 rows"]:
    """Value, slope and curvature at every step. Raises NumericsError if they are not the contract's."""
    held = pkgutil.get_data("models.contract.functions", "tables.npz")
    if held is None:
        raise NumericsError(
            "tables: models/contract/functions/tables.npz is missing. Install the package anew."
        )
    with np.load(io.BytesIO(held)) as tables:
        found = tables[name]
    return check(name, found)


def check(name: Name, found: Int64[np.ndarray, "3 rows"]) -> Int64[np.ndarray, "3 rows"]:
    """The table, if its bytes are those of the contract."""
    sha1 = hashlib.sha1(found.astype("<i8").tobytes()).hexdigest()
    if sha1 != SHA1[name]:
        raise NumericsError(
            f"tables: {name} has sha1 {sha1}, the contract's is {SHA1[name]}. Install it anew."
        )
    return found


def quad(name: Name, x: Int64[Array, "*shape"], s: int) -> Int64[Array, "*shape"]:
    """QUAD: the function at x, whose low s bits lie between two steps; shifts round down."""
    value, slope, bend = (jnp.asarray(part)[x >> s] for part in table(name))
    rest = x & ((1 << s) - 1)
    return value + ((rest * (slope + ((rest * bend) >> s))) >> s)
