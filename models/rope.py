"""The RoPE table: cos and sin of every position in Q.15, computed in f64.

A model may turn only the first lanes of each head. The loader then puts the lanes of each head in another
order (`lane_order`), so that those that are not turned are pairs too, whose angle is 0.
"""

import functools

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from models.rope_scaling import Scaling


def frequencies(
    head_dim: int, theta: float, scaling: Scaling | None = None, context: int = 1
) -> Float64[np.ndarray, " pairs"]:
    """Radians per token of each pair of lanes.

    Source: theta^(-2i/d) of RoFormer; scaling as in models/rope_scaling.py.
    """
    plain = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    return plain if scaling is None else scaling.speeds(plain, theta, context)


def lane_order(head_dim: int, turned: int) -> Int64[np.ndarray, " head_dim"]:
    """The lane of a checkpoint's head that lies at each lane of ours, if the first `turned` are turned.

    Both halves of the turned lanes come first in our halves, so that partners lie half a head apart.
    """
    lanes = np.arange(head_dim)
    first, second = lanes[: turned // 2], lanes[turned // 2 : turned]
    rest = lanes[turned:]
    half = len(rest) // 2
    return np.concatenate([first, rest[:half], second, rest[half:]])


@functools.lru_cache(maxsize=4)
def rope_angles(
    context: int, head_dim: int, theta: float, scaling: Scaling | None = None, turned: int | None = None
) -> Int32[np.ndarray, "context 2 pairs"]:
    """Cos (row 0) and sin (row 1) per position, times 2^15 and rounded; 1.0 is 32768. Read-only."""
    table = np.rint(_turns(context, head_dim, theta, scaling, turned) * 2**15).astype(np.int32)
    table.setflags(write=False)
    return table


def rope_turns(
    context: int, head_dim: int, theta: float, scaling: Scaling | None = None, turned: int | None = None
) -> Float32[np.ndarray, "context 2 pairs"]:
    """Cos and sin per position in f32: what the plain f32 step turns by."""
    return _turns(context, head_dim, theta, scaling, turned).astype(np.float32)


def _turns(
    context: int, head_dim: int, theta: float, scaling: Scaling | None, turned: int | None
) -> Float64[np.ndarray, "context 2 pairs"]:
    speeds = frequencies(turned or head_dim, theta, scaling, context)
    turn = np.arange(context, dtype=np.float64)[:, None] * speeds
    amplitude = 1.0 if scaling is None else scaling.amplitude()
    table = np.stack([np.cos(turn), np.sin(turn)], axis=1) * amplitude
    rest = np.zeros((context, 2, head_dim // 2 - len(speeds)))
    rest[:, 0] = 1.0  # neither turned nor multiplied
    return np.concatenate([table, rest], axis=2)
