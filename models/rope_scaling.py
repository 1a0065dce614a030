"""How a model stretches RoPE beyond the context that it was first trained with: one frozen record per kind.

Each record turns the plain speeds of the pairs, in radians per token, into its own, and says by how much cos
and sin are multiplied. Source of all formulas: transformers 5.24, modeling_rope_utils.py. Its *dynamic* kind
is no record: up to the longest context of the model, which no program passes, it changes nothing.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

Speeds = Float64[np.ndarray, " pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1: slow pairs are slowed by the factor, fast ones are left, those between blend."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int

    def __post_init__(self) -> None:
        _positive(self)
        if self.low_freq_factor > self.high_freq_factor:
            raise ValueError(
                f"rope_scaling: low_freq_factor {self.low_freq_factor} must be below "
                f"high_freq_factor {self.high_freq_factor}, or equal."
            )

    def speeds(self, plain: Speeds, theta: float, context: int) -> Speeds:
        """Radians per token of each pair."""
        turns = self.original_max_position * plain / (2 * math.pi)  # turns over the original context
        low, high = self.low_freq_factor, self.high_freq_factor
        blend = np.clip((turns - low) / (high - low), 0.0, 1.0) if high > low else 1.0 * (turns >= low)
        return (1 - blend) * plain / self.factor + blend * plain

    def amplitude(self) -> float:
        """By how much cos and sin are multiplied."""
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearScaling:
    """All pairs are slowed by the factor."""

    rope_type: Literal["linear"] = "linear"
    factor: float

    def __post_init__(self) -> None:
        _positive(self)

    def speeds(self, plain: Speeds, theta: float, context: int) -> Speeds:
        """Radians per token of each pair."""
        return plain / self.factor

    def amplitude(self) -> float:
        """By how much cos and sin are multiplied."""
        return 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnScaling:
    """YaRN: pairs that turn less than `beta_slow` times over the original context are slowed by the factor.

    Those that turn more than `beta_fast` times are left, those between blend by their index; the amplitude is
    `attention_factor`.
    """

    rope_type: Literal["yarn"] = "yarn"
    factor: float
    original_max_position: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def __post_init__(self) -> None:
        _positive(self)

    def speeds(self, plain: Speeds, theta: float, context: int) -> Speeds:
        """Radians per token of each pair."""
        lanes = 2 * len(plain)
        low, high = (
            lanes * math.log(self.original_max_position / (2 * math.pi * turns)) / (2 * math.log(theta))
            for turns in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, lanes - 1)
        high += 0.001 if low == high else 0
        slowed = np.clip((np.arange(len(plain)) - low) / (high - low), 0.0, 1.0)
        return plain / self.factor * slowed + plain * (1 - slowed)

    def amplitude(self) -> float:
        """By how much cos and sin are multiplied."""
        return self.attention_factor


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRopeScaling:
    """LongRoPE: each pair is slowed by a factor of its own, from one list up to the original context.

    A longer context takes the other list at every position, as transformers does for a sequence that long.
    attention_factor: the amplitude, of both.
    """

    rope_type: Literal["longrope"] = "longrope"
    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position: int
    attention_factor: float

    def __post_init__(self) -> None:
        _positive(self)
        if len(self.short_factor) != len(self.long_factor):
            raise ValueError(
                f"rope_scaling: short_factor has {len(self.short_factor)} entries, long_factor "
                f"{len(self.long_factor)}; both have one per pair."
            )

    def speeds(self, plain: Speeds, theta: float, context: int) -> Speeds:
        """Radians per token of each pair."""
        factors = self.long_factor if context > self.original_max_position else self.short_factor
        if len(factors) != len(plain):
            raise ValueError(
                f"rope_scaling: {len(factors)} factors for {len(plain)} pairs; give one per pair."
            )
        return plain / np.array(factors, np.float64)

    def amplitude(self) -> float:
        """By how much cos and sin are multiplied."""
        return self.attention_factor


@dataclass(frozen=True, slots=True, kw_only=True)
class ProportionalScaling:
    """The first `turned` lanes of heads of `head_dim` turn as if all did, slowed by a factor; others do not.

    The table may be for more lanes, or for fewer than a head has.
    """

    rope_type: Literal["proportional"] = "proportional"
    head_dim: int
    turned: int
    factor: float

    def __post_init__(self) -> None:
        _positive(self)

    def speeds(self, plain: Speeds, theta: float, context: int) -> Speeds:
        """Radians per token of each pair."""
        lane = 2.0 * np.arange(len(plain))
        return np.where(lane < self.turned, theta ** (-lane / self.head_dim) / self.factor, 0.0)

    def amplitude(self) -> float:
        """By how much cos and sin are multiplied."""
        return 1.0


Scaling = Llama3Scaling | LinearScaling | YarnScaling | LongRopeScaling | ProportionalScaling
_KINDS: dict[str, Any] = {"linear": LinearScaling, "yarn": YarnScaling, "longrope": LongRopeScaling}


def scaling_of(values: dict[str, Any]) -> Scaling:
    """The record of the fields that `asdict` gave; without `rope_type`, which is older, that of Llama 3."""
    kind = _KINDS.get(str(values.get("rope_type")), Llama3Scaling)
    held: dict[str, Any] = {}
    for name, value in values.items():
        held[name] = tuple(map(float, value)) if isinstance(value, list) else value
    return kind(**held)


def _positive(scaling: Scaling) -> None:
    """Raise ValueError for a number that is not above 0, or not finite."""
    for field in fields(scaling):
        value: Any = getattr(scaling, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, (int, float)) and not isinstance(one, bool) and not 0 < one < math.inf:
                raise ValueError(f"rope_scaling: {field.name} is {one}, it must be finite and above 0.")
