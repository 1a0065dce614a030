"""Host memory that JAX reads in place, without a copy: for weights that are used once and then overwritten.

Gives arrays whose memory is aligned as XLA requires, and JAX arrays over the memory of numpy ones.
"""

from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Shaped

_ALIGNMENT = 64  # bytes; XLA copies arrays that are aligned to less


def aligned_zeros(shape: tuple[int, ...], dtype: Any = np.uint8) -> Shaped[np.ndarray, "*shape"]:
    """Zeros that JAX can borrow; pages that are never written take no memory."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -raw.ctypes.data % _ALIGNMENT
    return raw[first : first + size].view(dtype).reshape(shape)


def borrow(values: Shaped[np.ndarray, "*shape"]) -> Shaped[Array, "*shape"]:
    """A JAX array over the same memory: overwrite it only when every use of the array is done."""
    return jax.dlpack.from_dlpack(values)
