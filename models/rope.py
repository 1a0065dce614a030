"""The RoPE table: cos and sin of every position in Q1.15, computed in f64."""

import functools
import math

import numpy as np
from jaxtyping import Float32, Float64, Int32

from models.config import Llama3Scaling


def frequencies(
    head_dim: int, theta: float, scaling: Llama3Scaling | None = None
) -> Float64[np.ndarray, " pairs"]:
    """Radians per token of each pair of lanes.

    Source: theta^(-2i/d) of RoFormer; scaling as transformers `_compute_llama3_parameters`.
    """
    plain = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if scaling is None:
        return plain
    turns = scaling.original_max_position * plain / (2 * math.pi)  # turns over the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - blend) * plain / scaling.factor + blend * plain


@functools.lru_cache(maxsize=4)
def rope_angles(
    context: int, head_dim: int, theta: float, scaling: Llama3Scaling | None = None
) -> Int32[np.ndarray, "context 2 pairs"]:
    """Cos (row 0) and sin (row 1) per position, times 2^15 and rounded; 1.0 is 32768. Read-only."""
    table = np.rint(_turns(context, head_dim, theta, scaling) * 2**15).astype(np.int32)
    table.setflags(write=False)
    return table


def rope_turns(
    context: int, head_dim: int, theta: float, scaling: Llama3Scaling | None = None
) -> Float32[np.ndarray, "context 2 pairs"]:
    """Cos and sin per position in f32: what the plain f32 step turns by."""
    return _turns(context, head_dim, theta, scaling).astype(np.float32)


def _turns(
    context: int, head_dim: int, theta: float, scaling: Llama3Scaling | None
) -> Float64[np.ndarray, "context 2 pairs"]:
    turn = np.arange(context, dtype=np.float64)[:, None] * frequencies(head_dim, theta, scaling)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)
