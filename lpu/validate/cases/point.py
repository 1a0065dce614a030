"""One figure compared with a published one: kind, signed error, tolerance, verdict."""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["fit", "anchor", "check", "gate", "shown"]
"""fit: a constant was fitted to the figure, so agreement proves nothing. anchor: the figure follows from the
other numbers, within its tolerance. check: a published limit that the model must keep. gate: an upper limit,
set after seeing the errors, against changes for the worse. shown: for comparison, with no verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPoint:
    """A modelled figure beside a published one, both in `unit`.

    at_least: `published` is a lower limit (for a gate always an upper one). tolerance_percent: the largest
    distance of `modelled` from `published`, both ways or, for a lower limit, below it; None: no verdict.
    band: what the model allows, `modelled` its middle; the verdict is whether `published` is in it.
    """

    case: int
    name: str
    kind: Kind
    unit: str
    published: int | float
    modelled: int | float
    tolerance_percent: int | float | None
    at_least: bool = False
    band: tuple[float, float] | None = None

    @property
    def error_percent(self) -> float:
        """Signed: modelled above published is positive."""
        return 100 * (self.modelled - self.published) / self.published

    @property
    def passed(self) -> bool | None:
        """Whether the figure is within its tolerance; None where there is no verdict."""
        if self.band is not None and self.kind != "shown":
            return self.band[0] <= self.published <= self.band[1]
        if self.tolerance_percent is None:
            return None
        if self.kind == "gate":
            return self.modelled <= self.published
        error = self.error_percent if self.at_least else -abs(self.error_percent)
        return error >= -self.tolerance_percent

    def to_json(self) -> dict[str, Any]:
        """For `--json`; `published` and `modelled` are in `unit`."""
        return {
            "case": self.case,
            "point": self.name,
            "role": self.kind,
            "unit": self.unit,
            "published": self.published,
            "modelled": self.modelled,
            "at_least": self.at_least,
            "error_percent": self.error_percent,
            "tolerance_percent": self.tolerance_percent,
            "band": self.band,
            "passed": self.passed,
        }
