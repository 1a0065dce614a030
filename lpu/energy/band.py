"""A number that is known as a band: low, mid and high."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from math import isfinite


@dataclass(frozen=True, slots=True)
class Band:
    """low <= mid <= high, all finite and at least 0. ValueError for others."""

    low: float
    mid: float
    high: float

    def __post_init__(self) -> None:
        if not all(isfinite(one) and one >= 0 for one in astuple(self)):
            raise ValueError(f"{self}: needs finite numbers of at least 0")
        if not self.low <= self.mid <= self.high:
            raise ValueError(f"{self}: must ascend")

    def times(self, factor: float) -> "Band":
        """Each bound times a factor of at least 0."""
        return self.each(lambda one: factor * one)

    def plus(self, other: "Band") -> "Band":
        """Low plus low, mid plus mid, high plus high: as if all inputs erred the same way."""
        return Band(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def times_band(self, other: "Band") -> "Band":
        """Low times low, mid times mid, high times high."""
        return Band(self.low * other.low, self.mid * other.mid, self.high * other.high)

    def over(self, other: "Band") -> "Band":
        """Low over high, mid over mid, high over low: more of `other` is less. ValueError if it may be 0."""
        if other.low <= 0:
            raise ValueError(f"{other}: something is divided by it, needs to be above 0")
        return Band(self.low / other.high, self.mid / other.mid, self.high / other.low)

    def each(self, change: Callable[[float], float]) -> "Band":
        """`change` of each bound; it must not descend."""
        return Band(change(self.low), change(self.mid), change(self.high))

    def to_json(self) -> dict[str, float]:
        """For `--json`."""
        return {"low": self.low, "mid": self.mid, "high": self.high}

    def __str__(self) -> str:
        return f"{self.low:g} / {self.mid:g} / {self.high:g}"


NOTHING = Band(0.0, 0.0, 0.0)


def total(bands: list[Band]) -> Band:
    """The sum."""
    out = NOTHING
    for band in bands:
        out = out.plus(band)
    return out
