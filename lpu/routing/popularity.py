"""How often a router takes each expert: the same for all, drawn log-normal, by a power law, or as counted.

Rows are taken to choose apart from each other, each its experts one after another, by popularity among those
that it has not yet (Plackett-Luce). Source of the forms: facts moe.md 3.3; all but counts are assumed.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lpu.inputs.document import FileError

DRAWS, SEED = 4_000, 0
FORMS = "uniform, log-normal:SIGMA, power:ALPHA, or a file of counts"
Shares = Float64[np.ndarray, " experts"]
_CHOICE = f"Choose {FORMS}, one number a line for each expert."


@dataclass(frozen=True, slots=True, kw_only=True)
class Popularity:
    """A form of popularity and its parameter, or counts. name: as it was asked for."""

    name: str
    form: str = "uniform"
    parameter: float = 0.0
    counts: tuple[float, ...] = ()

    @property
    def kind(self) -> str:
        """How it is known."""
        return "counted" if self.counts else "assumed"

    def shares(self, experts: int) -> Shares:
        """How popular each expert is, in all 1; which is how popular is drawn by a fixed seed.

        Raises FileError for counts of another number of experts.
        """
        random = np.random.Generator(np.random.PCG64(SEED))
        if self.counts and len(self.counts) != experts:
            raise FileError(
                f"popularity: {self.name}: has {len(self.counts)} counts, the router {experts} experts. "
                "Give one for each."
            )
        if self.counts:
            found = np.array(self.counts)
        elif self.form == "log-normal":
            found = np.exp(self.parameter * random.standard_normal(experts))
        elif self.form == "power":
            found = (1.0 + random.permutation(experts)) ** -self.parameter
        else:
            found = np.ones(experts)
        return found / found.sum()

    def taken(self, experts: int, chosen: int) -> Shares:
        """How likely a row that chooses this many takes each expert."""
        shares = self.shares(experts)
        if (shares == shares[0]).all():
            return np.full(experts, chosen / experts)
        random = np.random.Generator(np.random.PCG64(SEED + 1))
        with np.errstate(divide="ignore"):
            keys = np.log(shares) + random.gumbel(size=(DRAWS, experts))
        ids = np.argpartition(-keys, chosen - 1, axis=1)[:, :chosen]
        return np.bincount(ids.reshape(-1), minlength=experts) / DRAWS


UNIFORM = Popularity(name="uniform")


def popularity_of(text: str) -> Popularity:
    """What a user writes: a form with its parameter, or the name of a file. Raises FileError."""
    form, _, number = text.partition(":")
    if text == "uniform":
        return UNIFORM
    if form in ("log-normal", "power"):
        try:
            parameter = float(number)
        except ValueError:
            parameter = math.nan
        if not 0 <= parameter <= 10:
            raise FileError(f"popularity: {text}: {number!r} is no number from 0 to 10. {_CHOICE}")
        return Popularity(name=text, form=form, parameter=parameter)
    return Popularity(name=text, form="counts", counts=_counted(Path(text)))


def _counted(path: Path) -> tuple[float, ...]:
    try:
        words = path.read_text().replace(",", " ").split()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"popularity: {path}: cannot be read ({type(error).__name__}). {_CHOICE}") from None
    try:
        counts = tuple(float(word) for word in words)
    except ValueError as error:
        raise FileError(f"popularity: {path}: {error}. {_CHOICE}") from None
    if not counts or min(counts) < 0 or not math.isfinite(sum(counts)) or not sum(counts):
        raise FileError(f"popularity: {path}: counts must be 0 or more, and not all 0. {_CHOICE}")
    return counts
