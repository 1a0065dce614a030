"""Corpora: properties of many numbered cases. Tests take a sample of each, `make acceptance` takes all."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SHARE = 0.02  # of each corpus, what make test-all takes at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Cases 0 to size - 1 of one property.

    hold: what a case comes to in a word, e.g. "held" or "refused"; raises where the property does not hold.
    least: share of the cases that comes to a word of `good`, so that a corpus of refusals does not pass.
    kind: of a case, for a table of its own.
    quick: which cases a sample is of; the others take minutes together and are left to `make acceptance`.
    """

    name: str
    size: int
    hold: Callable[[int], str]
    good: tuple[str, ...] = ("held",)
    least: float = 0.9
    kind: Callable[[int], str] | None = None
    quick: Callable[[int], bool] = lambda case: True

    def sample(self, share: float = SHARE) -> list[int]:
        """At least that share of the cases, drawn by the name of the corpus, in order."""
        random = np.random.default_rng(list(self.name.encode()))
        drawn = [case for case in random.permutation(self.size).tolist() if self.quick(case)]
        return sorted(drawn[: -int(-self.size * share // 1)])
