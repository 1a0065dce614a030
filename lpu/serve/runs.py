"""Requests that state their arrival, and how many belong together: their times are those of all of them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lpu.serve.modelled import SlotTimes, TimedSequence
from lpu.serve.refusal import RefusalError

GATHER_SECONDS = 120.0
MOST_REQUESTS = 1_000_000
Together = Callable[[Sequence[TimedSequence]], list[SlotTimes]]


@dataclass(slots=True)
class Gathering:
    """A run that is not complete: how many requests it has, and what of them is known."""

    count: int
    entries: list[list[TimedSequence]] = field(default_factory=list[list[TimedSequence]])
    done: asyncio.Future[list[list[SlotTimes]]] = field(default_factory=asyncio.Future)


class Runs:
    """Runs by their name. A request waits here when it is decoded, until the others of its run are."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self._open: dict[str, Gathering] = {}

    def check(self, name: str, count: int) -> None:
        """Raise RefusalError if the run was said to have another number of requests."""
        found = self._open.get(name)
        if found is not None and found.count != count:
            raise RefusalError(
                400, f"x-lpu-requests is {count}, the run {name!r} was begun with {found.count}."
            )

    async def times(self, name: str, count: int, sequences: list[TimedSequence]) -> list[SlotTimes]:
        """The times of a request's sequences, once all requests of the run are decoded."""
        run = self._open.setdefault(name, Gathering(count))
        place = len(run.entries)
        run.entries.append(sequences)
        if len(run.entries) == run.count:
            del self._open[name]
            found = iter(self._together([one for entry in run.entries for one in entry]))
            run.done.set_result([[next(found) for _ in entry] for entry in run.entries])
        try:
            return (await asyncio.wait_for(asyncio.shield(run.done), GATHER_SECONDS))[place]
        except TimeoutError:
            if self._open.get(name) is run:
                del self._open[name]
            raise RefusalError(
                408,
                f"{len(run.entries)} of {run.count} requests of the run {name!r} came within "
                f"{GATHER_SECONDS:g} s. Send all that x-lpu-requests states.",
            ) from None
