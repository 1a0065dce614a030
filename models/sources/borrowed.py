"""Numpy memory that JAX reads where it lies, without a copy: for arrays used once and filled again."""

from typing import Any

import jax
import numpy as np
from jax import Array

_ALIGNMENT = 64  # bytes; what lies otherwise is copied


def aligned_zeros(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    """Zeros that JAX can borrow; memory that is never written costs nothing."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % _ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)


def borrow(values: np.ndarray) -> Array:
    """The values as a JAX array over the same memory: write there again only when all uses of it are done."""
    return jax.dlpack.from_dlpack(values)
