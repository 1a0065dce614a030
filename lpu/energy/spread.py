"""A number that is known as a band: low, mid and high."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from math import isfinite


@dataclass(frozen=True, slots=True)
class Spread:
    """low <= mid <= high, all finite and at least 0. ValueError for others."""

    low: float
    mid: float
    high: float

    def __post_init__(self) -> None:
        if not all(isfinite(one) and one >= 0 for one in astuple(self)):
            raise ValueError(f"{self}: needs finite numbers of at least 0")
        if not self.low <= self.mid <= self.high:
            raise ValueError(f"{self}: must ascend")

    def times(self, factor: float) -> "Spread":
        """Each bound times a factor of at least 0."""
        return self.each(lambda one: factor * one)

    def plus(self, other: "Spread") -> "Spread":
        """Low plus low, mid plus mid, high plus high: as if all inputs erred the same way."""
        return Spread(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def times_band(self, other: "Spread") -> "Spread":
        """Low times low, mid times mid, high times high."""
        return Spread(self.low * other.low, self.mid * other.mid, self.high * other.high)

    def over(self, other: "Spread") -> "Spread":
        """Low over high, mid over mid, high over low: more of `other` is less. ValueError if it may be 0."""
        if other.low <= 0:
            raise ValueError(f"{other}: something is divided by it, needs to be above 0")
        return Spread(self.low / other.high, self.mid / other.mid, self.high / other.low)

    def each(self, change: Callable[[float], float]) -> "Spread":
        """`change` of each bound; it must not descend."""
        return Spread(change(self.low), change(self.mid), change(self.high))

    def to_json(self) -> dict[str, float]:
        """For `--json`."""
        return {"low": self.low, "mid": self.mid, "high": self.high}

    def __str__(self) -> str:
        return f"{self.low:g} / {self.mid:g} / {self.high:g}"


NOTHING = Spread(0.0, 0.0, 0.0)


def total(bands: list[Spread]) -> Spread:
    """The sum."""
    out = NOTHING
    for band in bands:
        out = out.plus(band)
    return out
