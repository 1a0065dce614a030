"""A constant that was fitted to a published figure, as a record."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A constant that was fitted to a figure of `case`. where: the programs that it moves."""

    name: str
    value: str
    case: int
    figure: str
    where: str

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "value": self.value,
            "case": self.case,
            "figure": self.figure,
            "where": self.where,
        }

    def __str__(self) -> str:
        return f"{self.name} = {self.value}, to {self.figure} (case {self.case}); in {self.where}"
