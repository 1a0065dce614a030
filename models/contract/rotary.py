"""RoPE tables from speeds, and what models/rope_scaling.py has no record of: dynamic and proportional speeds.

The table is the contract: cos and sin of RN64(position x speed), rounded correctly, times the amplitude in
Q.15. Source: facts/contract2.md section 6.
"""

import math

import numpy as np
from jaxtyping import Float64, Int32, Int64

Speeds = Float64[np.ndarray, " pairs"]


def table(
    speeds: Speeds, positions: Int64[np.ndarray, " positions"], amplitude: float = 1.0
) -> Int32[np.ndarray, "positions 2 pairs"]:
    """Cos (row 0) and sin (row 1) of every position times the amplitude, times 2^15 and rounded."""
    turn = positions.astype(np.float64)[:, None] * speeds
    return np.rint(np.stack([np.cos(turn), np.sin(turn)], axis=1) * amplitude * 2**15).astype(np.int32)


def dynamic_theta(theta: float, turned: int, factor: float, longest: int, original: int) -> float:
    """The base of *dynamic* scaling for a sequence of `longest` tokens; theta itself up to the original."""
    if longest <= original:
        return theta
    return theta * (factor * longest / original - (factor - 1)) ** (turned / (turned - 2))


def proportional_speeds(head_dim: int, theta: float, share: float) -> Speeds:
    """Radians per token where a share of the pairs is turned, at the speeds of all lanes (Gemma-4).

    Raises ValueError unless the share is above 0 and at most 1.
    """
    if not (0 < share <= 1 and math.isfinite(theta) and theta > 0):
        raise ValueError(
            f"rope: a share of {share} of the pairs at base {theta}: it must be above 0, at most 1."
        )
    speeds = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    speeds[int(share * head_dim / 2) :] = 0.0
    return speeds


def half_split(lanes: int) -> Int64[np.ndarray, " lanes"]:
    """The lane of a checkpoint whose pairs lie beside each other, at each lane of ours, where halves do."""
    return np.concatenate([np.arange(0, lanes, 2), np.arange(1, lanes, 2)])
