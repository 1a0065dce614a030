"""What can be chosen of `deskew`. Nothing heavy is imported here: the command line reads it."""

from dataclasses import dataclass
from typing import Annotated

from compiler.options import Option
from lpu.inputs.document import FileError


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskewOptions:
    """How far clocks drift, how often they are brought together again, and what a hop has in hand."""

    drift_ppm: Annotated[
        float,
        Option("--drift-ppm", "Between the slowest and the fastest clock of a rack (assumed).", least=0),
    ] = 100.0
    every: Annotated[
        int | None,
        Option("--every", "Cycles from one resynchronisation to the next.", least=1, shown="once a step"),
    ] = None
    cost: Annotated[
        int, Option("--cost", "Cycles that one of them takes on every chip (assumed).", least=0)
    ] = 1
    margin: Annotated[
        int, Option("--margin", "Cycles of each hop that are deskew margin (assumed).", least=0)
    ] = 8

    def __post_init__(self) -> None:
        if not 0 <= self.drift_ppm <= 1e5:
            raise FileError(f"options: --drift-ppm is {self.drift_ppm:g}, must be from 0 to 100000.")
        for name, value, least in (
            ("--every", self.every, 1),
            ("--cost", self.cost, 0),
            ("--margin", self.margin, 0),
        ):
            if value is not None and value < least:
                raise FileError(f"options: {name} is {value}, must be at least {least}.")
