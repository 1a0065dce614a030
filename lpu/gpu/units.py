"""Units of modelled time: picoseconds, named parts of a time, and how each is known."""

from dataclasses import dataclass
from typing import Any, Literal

from lpu.report.words import EXACT

Basis = Literal["exact for the stated machine", "measured", "partly measured", "modelled", "assumed"]
"""How a time is known. exact for the stated machine: cycles of a program. modelled: an operator model.
measured: a table of operators that the user gave; partly measured: the others are modelled. assumed: an
unpublished number."""
BASES: tuple[Basis, ...] = ("assumed", "modelled", "partly measured", "measured", EXACT)
"""All of them, the weakest first."""

PS_PER_SECOND = 10**12
PS_PER_US = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One named share of a time, in whole picoseconds, and how it is known."""

    name: str
    picoseconds: int
    basis: Basis

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"name": self.name, "seconds": self.picoseconds / PS_PER_SECOND, "kind": self.basis}


def picoseconds(seconds: float) -> int:
    """Seconds of a model, to the nearest picosecond."""
    return round(seconds * PS_PER_SECOND)


def cycles_ps(cycles: int, clock_hz: int) -> int:
    """Cycles of the rack's clock, cut to whole picoseconds."""
    return cycles * PS_PER_SECOND // clock_hz


def weakest(parts: tuple[Part, ...]) -> Basis:
    """How the sum of parts is known: as the weakest part that takes time."""
    known = {part.basis for part in parts if part.picoseconds}
    for basis in BASES:
        if basis in known:
            return basis
    return EXACT


def total(parts: tuple[Part, ...]) -> int:
    """Picoseconds of parts that follow one another."""
    return sum(part.picoseconds for part in parts)
