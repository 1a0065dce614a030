"""Searches over a few candidates in order, each of which is really tried."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from compiler.errors import CapacityError, CompileError

FOREVER = 1 << 62
C = TypeVar("C")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Generic[C, T]):
    """What was tried, in order: the cost of each candidate, or why it has none; and the cheapest, if any."""

    tried: tuple[tuple[C, int | CompileError], ...]
    best: tuple[C, T] | None

    def __str__(self) -> str:
        best = f", best is {self.best[0]}" if self.best else ""
        words = [f"{one}: {' '.join(str(found).split())}" for one, found in self.tried]
        return "\n".join([f"search: {len(self.tried)} tried{best}", *(f"  {line}" for line in words)])

    @property
    def found(self) -> tuple[C, T]:
        """The cheapest candidate and what it gave, where one was found."""
        assert self.best is not None
        return self.best

    @property
    def refusals(self) -> list[CompileError]:
        """Why candidates have no cost."""
        return [found for _, found in self.tried if isinstance(found, CompileError)]


def until_worse(
    candidates: Iterable[C],
    attempt: Callable[[C], T],
    cost: Callable[[T], int],
    *,
    patience: int,
    ties: bool = False,
    refused: tuple[type[CompileError], ...] = (),
    hopeless: Callable[[CompileError], bool] = lambda error: False,
    before: tuple[C, T] | None = None,
) -> Search[C, T]:
    """Try candidates until `patience` of them in a row are worse than the cheapest before them.

    ties: whether one that costs the same counts as no worse; the cheapest is the first of equals in any case.
    refused: errors of a candidate that cannot be, which says nothing of the next ones; but after a cheapest
    one has been found the search stops at a `hopeless` one. before: the cheapest so far; one that costs the
    same takes its place.
    """
    tried: list[tuple[C, int | CompileError]] = []
    best = before
    least, worse = (0 if before is None else cost(before[1]) + 1), 0
    for candidate in candidates:
        try:
            found = attempt(candidate)
        except refused as error:
            tried.append((candidate, error))
            if best is not None and hopeless(error):
                break
            continue
        now = cost(found)
        tried.append((candidate, now))
        if best is None or now < least:
            best, least, worse = (candidate, found), now, 0
        else:
            worse = 0 if ties and now == least else worse + 1
        if worse == patience:
            break
    return Search(tried=tuple(tried), best=best)


def first_that_fits(candidates: Iterable[C], attempt: Callable[[C], T]) -> T:
    """The result of the first candidate with room; raises what is `nearest` if none has."""
    refused: list[CapacityError] = []
    for candidate in candidates:
        try:
            return attempt(candidate)
        except CapacityError as error:
            refused.append(error)
    raise nearest(refused)


def nearest(errors: list[CapacityError]) -> CapacityError:
    """The error that asks for the fewest chips; the first of those that say nothing of chips if all do."""
    return min(errors, key=lambda error: FOREVER if error.chips is None else error.chips)


def doubled(most: int) -> Iterator[int]:
    """1, 2, 4, ... up to `most`."""
    value = 1
    while value <= most:
        yield value
        value *= 2
