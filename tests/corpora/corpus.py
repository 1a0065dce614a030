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
    """

    name: str
    size: int
    hold: Callable[[int], str]
    good: tuple[str, ...] = ("held",)
    least: float = 0.9

    def sample(self, share: float = SHARE) -> list[int]:
        """At least that share of the cases, drawn by the name of the corpus, in order."""
        random = np.random.default_rng(list(self.name.encode()))
        return sorted(random.permutation(self.size)[: -int(-self.size * share // 1)].tolist())
